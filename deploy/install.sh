#!/bin/sh
# Installs the HiveMind worker on a Linux machine with systemd, from this release folder or from a checkout. Run again,
# it brings the worker up to date and leaves its settings alone.
#
#   install.sh [--node-pool HOST:PORT] [--node-id NAME] [--python PYTHON] [--no-start] [--root DIR]
#   install.sh --uninstall [--purge] [--root DIR]
#
# --root DIR puts everything below DIR and touches no user and no service: to look at it, or to make a package of it.
# --uninstall leaves settings, and results that the pool has not taken yet; --purge removes those too.
set -eu
umask 022

unit=hivemind-worker.service
user=hivemind
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }

pool='' node='' root='' python=python3 start=yes uninstall='' purge=''
while [ $# -gt 0 ]; do
    case $1 in
    --node-pool=* | --node-id=* | --python=* | --root=*)
        flag=${1%%=*} value=${1#*=}
        shift
        set -- "$flag" "$value" "$@"
        continue
        ;;
    --node-pool | --node-id | --python | --root)
        [ $# -ge 2 ] || { usage >&2; fail "$1 needs a value"; }
        case $1 in
        --node-pool) pool=$2 ;;
        --node-id) node=$2 ;;
        --python) python=$2 ;;
        --root) root=$2 ;;
        esac
        shift
        ;;
    --no-start) start='' ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
case $pool$node in *[!A-Za-z0-9._:-]*) fail "--node-pool and --node-id are plain: letters, digits and . _ : -" ;; esac
[ -z "$purge" ] || [ -n "$uninstall" ] || fail "--purge goes with --uninstall"
case $root in
'') [ "$(id -u)" = 0 ] || fail "must be root to install for the machine; --root DIR only puts the files there" ;;
/*) ;;
*) root=$PWD/$root ;;
esac
[ -n "$root" ] || command -v systemctl >/dev/null || fail "there is no systemd here: pip install the wheel, and run hivemind worker"

home=$root/opt/hivemind-worker
settings=$root/etc/hivemind/hivemind.toml
service=$root/etc/systemd/system/$unit

# Our own folder, and no other that has its name.
ours() { [ -f "$home/.hivemind-worker" ]; }

stop() {
    [ -n "$root" ] || ! systemctl is-active --quiet "$unit" || {
        say "stopping the worker: its tasks may finish (drain_timeout)"
        systemctl stop "$unit"
    }
}

if [ -n "$uninstall" ]; then
    stop
    [ -n "$root" ] || [ ! -f "$service" ] || systemctl disable --quiet "$unit"
    rm -f "$service"
    [ -n "$root" ] || systemctl daemon-reload
    ours && rm -rf "$home"
    for name in hivemind hivemind-worker; do
        command=$root/usr/local/bin/$name
        [ ! -f "$command" ] || ! grep -q '^exec /opt/hivemind-worker/' "$command" || rm -f "$command"
    done
    if [ -n "$purge" ]; then
        rm -rf "$root/etc/hivemind" "$root/var/lib/hivemind" "$root/var/cache/hivemind" "$root/var/log/hivemind"
        [ -n "$root" ] || ! id "$user" >/dev/null 2>&1 || userdel "$user"
        say "removed, with its settings and its state"
    else
        say "removed; its settings (/etc/hivemind) and its state (/var/lib/hivemind) are still there: --purge removes them"
    fi
    exit 0
fi

# What to install: the wheel beside this script, or the checkout that it lies in.
package=
for found in "$here"/hivemind_worker-*.whl; do
    [ ! -f "$found" ] || [ -z "$package" ] || fail "more than one wheel in $here: which one is it?"
    [ ! -f "$found" ] || package=$found
done
if [ -n "$package" ]; then
    [ ! -f "$here/SHA256SUMS" ] || (cd "$here" && sha256sum --check --quiet --strict SHA256SUMS) ||
        fail "files here are not those of the release: fetch it again"
elif [ -f "$here/../pyproject.toml" ]; then
    package=$(CDPATH='' cd -- "$here/.." && pwd)
else
    fail "there is no wheel beside this script"
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is missing or older than Python 3.11; name another with --python"
# The service sees no homes, and its user could not enter them anyway.
[ -n "$root" ] || case $("$python" -c 'import os, sys; print(os.path.realpath(sys.base_prefix))') in
/root/* | /home/*) fail "$python lies in somebody's home: name one of the system, such as --python=/usr/bin/python3" ;;
esac
[ ! -e "$home" ] || ours || fail "$home is there and is not ours: move it away"

stop
say "== programs: $home"
again=
[ ! -d "$home/lib" ] || again=yes
mkdir -p "$home"
: >"$home/.hivemind-worker"
"$python" -m venv "$home" || fail "$python cannot make virtual environments: install its venv module (Debian: python3-venv)"
pip() { "$home/bin/python" -m pip --disable-pip-version-check install --quiet "$@"; }
pip "$package" || fail "the packages could not be fetched: pip says why; its settings (index, proxy) are pip's own"
# A wheel of the same version is another build of it, perhaps.
[ -z "$again" ] || pip --no-deps --force-reinstall "$package"
"$home/bin/python" -m hivemind_worker --version >/dev/null || fail "installed, and does not start: see above"

mkdir -p "$root/usr/local/bin"
for name in hivemind hivemind-worker; do
    verb=
    [ "$name" = hivemind ] || verb='worker '
    # By module: it works wherever the folder was made.
    printf '#!/bin/sh\nexec /opt/hivemind-worker/bin/python -m hivemind_worker %s"$@"\n' "$verb" >"$root/usr/local/bin/$name"
    chmod 755 "$root/usr/local/bin/$name"
done

if [ -z "$root" ]; then
    id "$user" >/dev/null 2>&1 || useradd --system --user-group --home-dir /var/lib/hivemind --no-create-home \
        --shell /usr/sbin/nologin "$user"
    # Whoever may use the engine's socket may do what root may.
    ! getent group docker >/dev/null || usermod --append --groups docker "$user"
fi

if [ -f "$settings" ]; then
    say "== settings: $settings is left as it is"
    [ -z "$pool$node" ] || say "   (--node-pool and --node-id are for a first installation: change them there)"
else
    say "== settings: $settings"
    mkdir -p "$(dirname "$settings")"
    name='# node_id = "worker-001"  # made once and kept when it is not set'
    [ -z "$node" ] || name="node_id = \"$node\""
    cat >"$settings" <<END
# Settings of the HiveMind worker. All there are: hivemind config show. Then: systemctl restart hivemind-worker
[node]
node_pool_address = "${pool:-localhost:50051}"
$name

[storage]
log_dir = "/var/log/hivemind"
END
    chmod 640 "$settings"
    [ -n "$root" ] || chgrp "$user" "$settings"
fi

say "== service: $service"
mkdir -p "$(dirname "$service")"
cp "$here/$unit" "$service"
chmod 644 "$service"
command -v bwrap >/dev/null || command -v docker >/dev/null ||
    say "!! neither Docker nor bubblewrap is installed: the worker does not start without one (a task never runs unfenced)"
if [ -z "$root" ]; then
    systemctl daemon-reload
    systemctl enable --quiet "$unit"
    if [ -n "$start" ]; then
        systemctl restart "$unit"
        say "the worker runs: systemctl status hivemind-worker, hivemind health, journalctl -u hivemind-worker"
    else
        say "start it with: systemctl start hivemind-worker"
    fi
fi
