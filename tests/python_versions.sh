#!/bin/sh
# Run the default tests with the Pythons of newer Debian releases: `make python-versions`, or name releases as arguments.
# Each is a folder that mmdebstrap fills and deletes; nothing is installed on this machine.
set -eu
[ $# -gt 0 ] || set -- trixie forky
here=$(cd "$(dirname "$0")/.." && pwd)
packages=python3-venv,ca-certificates,git,openssh-client,openssh-server,e2fsprogs,procps,util-linux,iproute2,curl,wget
authorities=/etc/ssl/certs/ca-certificates.crt  # those of this machine: a proxy may have one of its own
surroundings="PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PIP_CERT=$authorities SSL_CERT_FILE=$authorities"
# Left out: tests of programs that such a folder does not have (browsers, QEMU, other shells), or that mount.
inside='
cp -a /source /imagepipe && cd /imagepipe
python3 --version
python3 -m venv /venv
/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt ".[local,dev]"
/venv/bin/python -m pytest -q -p no:cacheprovider -n 2 --dist worksteal \
  --ignore tests/test_deletion.py \
  --ignore tests/report/test_page_in_browser.py --ignore tests/cli/test_ui.py --ignore tests/cli/test_completion.py \
  --ignore tests/local/disks --ignore tests/local/machines --ignore tests/docs --ignore tests/capture/agent
'
for release; do
  echo "== Debian $release"
  mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' --include="$packages" --format=null \
    --customize-hook='mkdir "$1/source"' \
    --customize-hook="cd '$here' && git archive HEAD | tar -x -C \"\$1/source\"" \
    --customize-hook='cp /etc/resolv.conf "$1/etc/"; cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"' \
    --customize-hook="chroot \"\$1\" env -i $surroundings sh -ec '$inside'" \
    "$release" -
done
