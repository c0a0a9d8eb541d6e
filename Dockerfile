# The worker in a container. It gives its tasks to the host's engine through the engine's socket and needs no path of
# the host:
#   docker build -t hivemind-worker .
#   docker run -d -e NODE_ID=worker-001 -e NODE_POOL_ADDRESS=pool.example.org:50051 \
#     -v /var/run/docker.sock:/var/run/docker.sock hivemind-worker
# Any image of Debian or Ubuntu with Python 3.11 or newer and its venv module will do as BASE.
ARG BASE=python:3.11-slim
FROM ${BASE} AS build
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN python3 -m venv /opt/hivemind && /opt/hivemind/bin/python -m pip install --no-cache-dir --disable-pip-version-check /src

FROM ${BASE}
COPY --from=build /opt/hivemind /opt/hivemind
ENV PATH=/opt/hivemind/bin:$PATH HIVEMIND_STATE_DIR=/var/lib/hivemind HIVEMIND_LOG_DIR=/var/log/hivemind
# Who it is and what it has not delivered yet. Its user is root: whoever may use the engine's socket is so anyway.
VOLUME /var/lib/hivemind
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["hivemind", "health", "-q"]
ENTRYPOINT ["hivemind-worker"]
