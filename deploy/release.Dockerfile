# The worker in a container, from the wheel of a release:
#   docker build -t hivemind-worker .
#   docker run -d -e NODE_ID=worker-001 -e NODE_POOL_ADDRESS=pool.example.org:50051 \
#     -v hivemind-worker:/var/lib/hivemind -v /var/run/docker.sock:/var/run/docker.sock hivemind-worker
# Any image of Debian or Ubuntu with Python 3.11 or newer and its venv module will do as BASE.
ARG BASE=python:3.11-slim
FROM ${BASE}
COPY hivemind_worker-*.whl /tmp/
RUN python3 -m venv /opt/hivemind && /opt/hivemind/bin/python -m pip install --no-cache-dir --disable-pip-version-check /tmp/hivemind_worker-*.whl
ENV PATH=/opt/hivemind/bin:$PATH HIVEMIND_STATE_DIR=/var/lib/hivemind HIVEMIND_LOG_DIR=/var/log/hivemind
VOLUME /var/lib/hivemind
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["hivemind", "health", "-q"]
ENTRYPOINT ["hivemind-worker"]
