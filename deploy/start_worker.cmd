@echo off
rem Starts a HiveMind worker on Windows: in a Linux container, for its tasks run in containers beside it.
rem   start_worker.cmd --node-pool=pool.example.org:50051 --node-id=worker-001
rem All that stands behind its name goes to `hivemind worker`. Ctrl-C lets running tasks finish.
setlocal

docker version >nul 2>&1
if errorlevel 1 (
  echo HiveMind Worker needs a Docker engine that runs Linux containers, and none answers here.
  echo Install Docker Desktop, start it, wait until it says that the engine is running, then start this again.
  echo   https://docs.docker.com/desktop/setup/install/windows-install/
  exit /b 69
)
docker version --format "{{.Server.Os}}" 2>nul | findstr /b /c:"linux" >nul
if errorlevel 1 (
  echo Docker runs Windows containers here. Switch it to Linux containers: right-click Docker's icon in the task bar.
  exit /b 69
)

docker build --quiet --tag hivemind-worker "%~dp0."
if errorlevel 1 (
  echo The worker's image could not be made: see above.
  exit /b 1
)

rem Who it is, and what it has not delivered yet, is kept in the volume.
docker run --interactive --tty --rm --stop-timeout 360 ^
  --volume hivemind-worker:/var/lib/hivemind ^
  --volume //var/run/docker.sock:/var/run/docker.sock ^
  hivemind-worker %*
exit /b %errorlevel%
