"""Request a URL on the instance itself, with whichever client it has.

The request comes from the instance and never from this computer: the temporary security group admits only SSH, and an
image must not need an open port to be tested.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import field
from urllib.parse import urlsplit

from imagepipe.communicator.shell import Script
from imagepipe.dataclass import dataclass
from imagepipe.provision.checks.check import CONTENT_BYTES, FactCheck, Facts, Mismatch, excerpt, one_of
from imagepipe.provision.checks.content import ExpectedText

REQUEST_SECONDS = 8
"""Time that one request has at least, below that of the last attempt; half of the test's time, if that is longer."""
RESPONSE_BYTES = CONTENT_BYTES + 1  # one more shows that the body was cut

# Headers are in the environment and on standard input, never in an argument, because they may be secrets. No client
# follows redirects, uses a proxy or reads a configuration file of the user. The raw response of bash is split here.
# BusyBox's wget takes headers only as arguments, and no method, so it is the last choice.
_SCRIPT = r"""
url=$1 method=$2 insecure=$3 seconds=$4 bytes=$5 host=$6 port=$7 target=$8
folder=$(mktemp -d /dev/shm/imagepipe.XXXXXXXX 2>/dev/null) || folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
: >"$folder/head"; : >"$folder/body"; : >"$folder/error"; echo 0 >"$folder/code"
limited() { if command -v timeout >/dev/null 2>&1; then timeout "$seconds" "$@"; else "$@"; fi; }
with_curl() {
  client=curl
  [ "$insecure" = 0 ] || set -- "$@" --insecure
  if [ "$method" = HEAD ]; then set -- "$@" --head; else set -- "$@" --request "$method"; fi
  printf '%s\n' "$IMAGEPIPE_HEADERS" | sed 's/\\/\\\\/g; s/"/\\"/g; s/^..*$/header = "&"/' | {
    curl -q --config - --globoff --proto =http,https --noproxy '*' --silent --show-error --max-time "$seconds" \
      --dump-header "$folder/head" "$@" --url "$url" 2>"$folder/error"
    echo $? >"$folder/code"
  } | head -c "$bytes" >"$folder/body"
}
with_python() {
  client=python3
  python3 -I - "$url" "$method" "$insecure" "$seconds" "$bytes" "$folder" 2>"$folder/error" <<'END' ||
import http.client, os, ssl, sys, urllib.parse
url, method, insecure, seconds, size, folder = sys.argv[1:]
parts = urllib.parse.urlsplit(url)
headers = dict(line.split(": ", 1) for line in os.environ["IMAGEPIPE_HEADERS"].splitlines() if line)
try:
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if insecure == "1":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=float(seconds), context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=float(seconds))
    connection.request(method, (parts.path or "/") + ("?" + parts.query if parts.query else ""), headers=headers)
    response = connection.getresponse()
    with open(os.path.join(folder, "head"), "w") as head:
        head.write("HTTP/1.1 %d %s\n" % (response.status, response.reason))
    with open(os.path.join(folder, "body"), "wb") as body:
        body.write(response.read(int(size)))
except Exception as error:
    sys.exit("%s" % (error or type(error).__name__))
END
  echo $? >"$folder/code"
}
with_bash() {
  client=bash
  limited bash -c '
    exec 3<>"/dev/tcp/$1/$2" || exit
    { printf "%s %s HTTP/1.0\r\n" "$3" "$4"
      while IFS= read -r line; do [ -z "$line" ] || printf "%s\r\n" "$line"; done <<<"$IMAGEPIPE_HEADERS"
      [ -z "$IMAGEPIPE_HOST" ] || printf "Host: %s\r\n" "$IMAGEPIPE_HOST"
      printf "Connection: close\r\n\r\n"; } >&3
    head -c "$5" <&3' bash "$host" "$port" "$method" "$target" "$((bytes + 65536))" >"$folder/raw" 2>"$folder/error" ||
    echo $? >"$folder/code"
  [ "$(cat "$folder/code")" != 124 ] || echo "no answer in $seconds s" >"$folder/error"
}
with_wget() {
  client=wget
  [ "$insecure" = 0 ] || set -- "$@" --no-check-certificate
  limited wget "$@" -S -T "$seconds" -O "$folder/body" "$url" 2>"$folder/head" || cp "$folder/head" "$folder/error"
}
if command -v curl >/dev/null 2>&1; then with_curl
elif command -v python3 >/dev/null 2>&1; then with_python
elif command -v bash >/dev/null 2>&1 && [ "${url#http:}" != "$url" ]; then with_bash
elif command -v wget >/dev/null 2>&1 && [ "$method" = GET ] && [ -z "$IMAGEPIPE_HEADERS" ]; then with_wget
else
  echo @problem
  echo "the instance has no program that can send this request: curl, python3, or for plain requests bash or wget"
  exit 0
fi
echo @client; echo "$client"
echo @code; cat "$folder/code"
for name in head body error raw; do
  [ -e "$folder/$name" ] || continue
  echo "@$name"; head -c "$((bytes + 65536))" "$folder/$name" | base64
done
"""
_STATUS = re.compile(rb"HTTP/[\d.]+ (\d{3})(?: ([^\r\n]*))?")
_CURL_WRITE_ERROR = 23  # our `head` closed the pipe after enough bytes


@dataclass(frozen=True)
class CheckHttp(FactCheck):
    """Check the status and the body of an HTTP response."""

    url: str
    status: tuple[int, ...]
    text: ExpectedText
    method: str
    insecure: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def script(self, names: Mapping[str, object]) -> Script:
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        has_host = any(name.lower() == "host" for name in self.headers)
        seconds = max(REQUEST_SECONDS, int(self.options.within_seconds / 2))
        words = (self.url, self.method, str(int(self.insecure)), str(seconds), str(RESPONSE_BYTES))
        env = {
            "IMAGEPIPE_HEADERS": "\n".join(f"{name}: {value}" for name, value in self.headers.items()),
            "IMAGEPIPE_HOST": "" if has_host else parts.netloc,
        }
        return self.fact_script(_SCRIPT, *words, parts.hostname or "", str(port), target, env=env)

    def compare(self, facts: Facts) -> Mismatch | None:
        sent = f"{self.method} {self.url}"
        head, body, error = (base64.b64decode(facts.get(name, "")) for name in ("head", "body", "error"))
        if "raw" in facts:
            head, _, body = base64.b64decode(facts["raw"]).partition(b"\r\n\r\n")
            body = body[:RESPONSE_BYTES]
        code, is_cut = int(facts.get("code") or 0), len(body) >= RESPONSE_BYTES
        found = _STATUS.findall(head)
        # curl also prints interim responses, such as 100; wget prints the responses that it was redirected to.
        answer = found[0 if facts.get("client") == "wget" else -1] if found else None
        if answer is None or (code != 0 and not (code == _CURL_WRITE_ERROR and is_cut)):
            reason = _reason(error) or "the connection ended without a response"
            return Mismatch(f"{sent}: no response: {reason}", _hint(reason))
        status, phrase = int(answer[0]), answer[1].decode(errors="replace").strip()
        if status not in self.status:
            got = f"{status} {phrase}".strip()
            seen = excerpt(body.decode(errors="replace"))
            return Mismatch(f"{sent}: expected status {one_of(self.status)}, got {got}", output=seen)
        mismatch = self.text.compare("the body", body)
        return None if mismatch is None else Mismatch(f"{sent}: {mismatch.message}", output=mismatch.output)


def _reason(error: bytes) -> str:
    """Return the line of a client's error that has the reason, without the client's name."""
    lines = [line for line in error.decode(errors="replace").splitlines() if line.strip()]
    of_curl = [line for line in lines if line.startswith("curl: (")]  # curl may explain at length below it
    found = (of_curl or lines[-1:] or [""])[0]
    return re.sub(r"^(curl: \(\d+\)|wget:|bash: line \d+:|bash:)\s*", "", found)


def _hint(reason: str) -> str | None:
    if re.search("refused|Couldn't connect|Could not connect|Failed to connect", reason, re.IGNORECASE):
        return "nothing listens there: is the service enabled, so that it starts at boot?"
    if re.search("certificate|SSL|TLS", reason):
        return "set insecure: true if the certificate need not be trusted by the instance"
    return None
