"""A command run on a pool, its output followed as it comes: python run_command.py WORD…"""

import sys

from hivemind_worker import Client

with Client() as client:  # the pool of `hivemind up` on this machine; another as Client("pool.example.org:50051")
    (task_id,) = client.submit({"command": sys.argv[1:], "timeout": 60})
    for piece in client.logs(task_id, follow=True):
        stream = sys.stdout if piece.stream == "stdout" else sys.stderr
        stream.buffer.write(piece.data)
        stream.flush()
    (ended,) = client.wait(task_id)

print(f"{ended.status} on {ended.node_id} in {ended.result.usage.wall_seconds:.2f} s")
sys.exit(ended.exit_code)
