# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.

# say TEXT: one line of progress with the seconds since the script began, or since the one began that
# called it with SECONDS_BEFORE.
SECONDS=${SECONDS_BEFORE:-0}
say() { printf '[%3ds] %s\n' "$SECONDS" "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { warn "$@"; exit 1; }

# free_ports PORT...: for each PORT itself, or one that the kernel picks when it is taken. All are
# held until all are known, so that no number comes twice.
free_ports() {
  perl -MSocket -e '
    my @held;
    for my $wanted (@ARGV) {
      for my $port ($wanted, 0) {
        socket(my $s, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
        setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
        bind($s, sockaddr_in($port, INADDR_LOOPBACK)) && listen($s, 1) or next;
        print +(sockaddr_in(getsockname $s))[0], "\n";
        push @held, $s;
        last;
      }
    }' "$@"
}

# alive PID TEXT: the process runs and has TEXT in its command line. A recorded pid alone proves
# nothing: after a crash the number may belong to a stranger. Zombies count as gone.
alive() {
  local line state=''
  [[ ${1:-} =~ ^[0-9]+$ ]] || return 1
  { line=$(tr '\0' ' ' <"/proc/$1/cmdline"); } 2>/dev/null || return 1
  [[ $line == *"$2"* ]] || return 1
  { state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status"); } 2>/dev/null || return 1
  [ "$state" != Z ]
}

# wait_gone PID TEXT SECONDS: true once the process is gone.
wait_gone() {
  local end=$((SECONDS + $3))
  while alive "$1" "$2"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

package_version() { sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1; }
revision() { git -C "$ROOT" describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown; }
