"""What programs say about logins, accounts and privileges: sshd, sudo, su, doas, login, PAM, the account tools and iked.

One table: the forms of each program, compiled to one regular expression, each with its action and outcome. `user` is who
acts, or whose login it is (of iked the peer's id); `target` the account that it is done to or as. What matches no form is
for others to read.

A name or a folder may hold anything, even the rest of such a message. Of sshd the last address is the peer's, but in what
it says of a key offered for an account that exists, where the id of a certificate follows: there it is the first. In the
lines of sudo and doas a crafted folder or argument can hide the command from these fields, never from the message.

Not supported: messages in other languages, the second line that su, useradd and usermod write for the shadow files, PAM
modules other than pam_unix, and what sudo logs as JSON.

Samples: ann : TTY=pts/0 ; PWD=/home/ann ; USER=root ; COMMAND=/usr/bin/id
FAILED SU (to root) ann on pts/0
pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from collectors.message_forms import Form, Reader, Values, end_columns, present, reader
from ringfence.addresses import AddressCache


class Said(NamedTuple):
    """What one message says; `port` is digits and `address` may be a host name."""

    action: str
    outcome: str
    reason: str | None = None
    method: str | None = None
    user: str | None = None
    target: str | None = None
    group: str | None = None
    command: str | None = None
    terminal: str | None = None
    address: str | None = None
    port: str | None = None
    key: str | None = None
    certificate: str | None = None
    application: str | None = None


def _named(name: str, what: str = ".{1,256}") -> str:
    return f"(?P<{name}>{what})"


_PEER = r"(?P<address>[0-9A-Fa-f:.]{2,45})(?:%[!-~]{1,16})? port (?P<port>\d{1,5})"
_PREAUTH = r"(?: \[preauth\])?"
_PAM_FAILURE = (
    r"logname=\S* uid=\d+ euid=\d+ tty=(?P<terminal>\S*) ruser=(?P<user>\S*) rhost=(?P<address>\S*) *(?:user=(?P<target>.*))?"
)
_KEY = r"[A-Z0-9-]{2,16} (?P<key>(?:SHA256|SHA1|MD5|SHA512):[!-~]{8,128})"
_CERTIFICATE = r"(?: ID (?P<certificate>.{0,512}) \(serial \d{1,20}\) CA [A-Z0-9-]{2,16} [!-~]{8,128})?"
# OpenSSH auth.c, auth2.c, auth-pam.c, packet.c, session.c, sshd.c, sshd-session.c and srclimit.c
_SSHD = (
    Form(
        rf"Accepted (?P<method>publickey|hostbased) for (?P<user>[^\s]{{1,100}}) from {_PEER} ssh2: {_KEY}{_CERTIFICATE}(?:, .*)?",
        "ssh-login",
    ),
    Form(
        rf"Failed (?P<method>publickey|hostbased) for (?P<user>[^\s]{{1,100}}) from {_PEER} ssh2: {_KEY}{_CERTIFICATE}(?:, .*)?{_PREAUTH}",
        "ssh-login",
        "failure",
    ),
    Form(
        rf"Partial (?P<method>[!-~]{{1,64}}) for (?P<user>.*) from {_PEER} ssh2(?:: {_KEY}{_CERTIFICATE}.*|{_PREAUTH})",
        "ssh-login-partial",
    ),
    Form(rf"Accepted (?P<method>[!-~]{{1,64}}) for (?P<user>.*) from {_PEER}(?: ssh2)?(?:: .*|{_PREAUTH})", "ssh-login"),
    Form(
        rf"Failed (?P<method>[!-~]{{1,64}}) for (?:(?P<reason>invalid user) )?(?P<user>.*) from {_PEER}(?: ssh2)?(?:: .*|{_PREAUTH})",
        "ssh-login",
        "failure",
    ),
    Form(rf"Invalid user (?P<user>.*) from {_PEER}", "ssh-invalid-user", "failure", {"reason": "invalid user"}),
    Form(
        rf"(?P<reason>(?:Connection closed by|Connection reset by|Disconnected from) (?:authenticating|invalid) user) (?P<user>.*) {_PEER}{_PREAUTH}",
        "ssh-disconnect",
        "failure",
    ),
    Form(
        rf"(?:Connection closed by|Connection reset by|Disconnected from) user (?P<user>.*) {_PEER}{_PREAUTH}", "ssh-disconnect"
    ),
    Form(
        rf"Disconnecting (?:authenticating|invalid) user (?P<user>.*) {_PEER}: (?P<reason>.*?){_PREAUTH}",
        "ssh-disconnect",
        "failure",
    ),
    Form(
        rf"(?:error: )?(?P<reason>maximum authentication attempts exceeded) for (?:invalid user )?(?P<user>.*) from {_PEER} ssh2{_PREAUTH}",
        "ssh-max-attempts",
        "failure",
    ),
    Form(
        r"User (?P<user>.{1,256}) from (?P<address>\S{1,256}) not allowed because (?P<reason>.*)", "ssh-not-allowed", "failure"
    ),
    Form(r"User (?P<user>.{1,256}) not allowed because (?P<reason>.*)", "ssh-not-allowed", "failure"),
    Form(
        rf"(?:fatal: )?Access denied for user (?P<user>.*) by (?P<reason>PAM account configuration){_PREAUTH}",
        "ssh-not-allowed",
        "failure",
    ),
    Form(rf"Authentication refused: (?P<reason>bad ownership or modes for .*?){_PREAUTH}", "ssh-not-allowed", "failure"),
    Form(
        rf"(?:error: )?Authentication key {_KEY} (?P<reason>revoked) by file .*?{_PREAUTH}",
        "ssh-key-refused",
        "failure",
    ),
    Form(rf"(?:error: )?Certificate invalid: (?P<reason>.*?){_PREAUTH}", "ssh-key-refused", "failure"),
    Form(
        rf"(?:fatal: )?(?P<reason>Timeout before authentication) for {_PEER}",
        "ssh-timeout",
        "failure",
    ),
    Form(
        r"(?P<reason>Timeout before authentication) for connection from (?P<address>[0-9A-Fa-f:.]{2,45}) to .*",
        "ssh-timeout",
        "failure",
    ),
    Form(
        rf"(?:fatal: )?Unable to negotiate with {_PEER}: (?P<reason>.*?){_PREAUTH}",
        "ssh-negotiation",
        "failure",
    ),
    Form(rf"(?:error: )?banner exchange: Connection from {_PEER}: (?P<reason>.*)", "ssh-negotiation", "failure"),
    Form(
        r"drop connection #\d{1,10} from \[(?P<address>[0-9A-Fa-f:.]{2,45})\]:(?P<port>\d{1,5}) on \[[^\]]{2,64}\]:\d{1,5} (?P<reason>.*)",
        "ssh-dropped",
        "failure",
    ),
    Form(
        r"srclimit_penalise: ipv[46]: new (?P<address>[0-9A-Fa-f:.]{2,45})/\d{1,3} (?:active|deferred) penalty of [\d.]{1,16} seconds for (?P<reason>.*)",
        "ssh-penalty",
        "failure",
    ),
    Form(
        r"srclimit_penalise: (?P<address>[0-9A-Fa-f:.]{2,45})/\d{1,3}: activating ipv[46] penalty of [\d.]{1,16} seconds for (?P<reason>.*)",
        "ssh-penalty",
        "failure",
    ),
    Form(
        rf"Starting session: (?:\S{{1,64}}|subsystem '[^']{{1,64}}'|forced-command .{{0,512}})(?: on (?P<terminal>\S{{1,64}}))? for (?P<user>.*) from {_PEER} id \d{{1,10}}",
        "ssh-session-started",
    ),
    Form(rf"Close session: user (?P<user>.*) from {_PEER} id \d{{1,10}}", "ssh-session-closed"),
    Form(
        r"error: PAM: (?P<reason>.{1,256}?) for (?:illegal user )?(?P<user>.{0,256}) from (?P<address>\S{1,256})",
        "authentication",
        "failure",
    ),
    Form(
        rf"(?P<reason>ROOT LOGIN REFUSED) FROM (?P<address>\S{{1,256}})(?: port (?P<port>\d{{1,5}}))?{_PREAUTH}",
        "ssh-not-allowed",
        "failure",
        {"user": "root"},
    ),
    Form(rf"PAM (?P<reason>\d+ more authentication failures?); {_PAM_FAILURE}", "authentication", "failure"),
)
# sudo lib/eventlog/eventlog.c; possessive, so that a long line takes no more than its length
_SUDO_TAIL = (
    r"(?:HOST=[^;]* ; )?TTY=(?P<terminal>[^ ;]*+) ; (?:CHROOT=[^;]*+; )?PWD=(?:(?! ; USER=).)*+ ; USER=(?P<target>[^;]{1,256}) ; "
    r"(?:GROUP=(?P<group>[^;]{1,256}) ; )?(?:TSID=[^;]*+; )?(?:ENV=(?:(?! ; COMMAND=).)*+ ; )?COMMAND=(?P<command>.*)"
)
_SUDO = (
    Form(rf" *(?P<user>\S.{{0,255}}?) : {_SUDO_TAIL}", "sudo"),
    Form(rf" *(?P<user>\S.{{0,255}}?) : (?P<reason>[^;=]{{1,200}}) ; {_SUDO_TAIL}", "sudo", "failure"),
)
# util-linux login-utils/su-common.c, shadow src/su.c, OpenBSD usr.bin/su/su.c
_SU = (
    Form(rf"\(to {_named('target')}\) {_named('user')} on (?P<terminal>\S+)", "su"),
    Form(rf"FAILED SU \(to {_named('target')}\) {_named('user')} on (?P<terminal>\S+)", "su", "failure"),
    Form(rf"Successful su for {_named('target')} by {_named('user')}", "su"),
    Form(rf"FAILED su for {_named('target')} by {_named('user')}", "su", "failure"),
    Form(r"BAD SU (?P<user>\S+) to (?P<target>\S+)(?: on (?P<terminal>\S+))?", "su", "failure"),
    Form(r"(?P<user>\S+) to (?P<target>\S+) on (?P<terminal>\S+)", "su"),
)
# util-linux login-utils/login.c, shadow src/login.c
_LOGIN = (
    Form(r"LOGIN ON (?P<terminal>\S+) BY (?P<user>.{1,256}?)(?: FROM (?P<address>\S+))?", "login"),
    Form(r"ROOT LOGIN ON (?P<terminal>\S+)(?: FROM (?P<address>\S+))?", "login", fixed={"user": "root"}),
    Form(
        r"FAILED LOGIN (?:SESSION|\d+) FROM (?P<address>\S+) FOR (?P<user>.{0,256}), (?P<reason>[^,]{1,256})",
        "login",
        "failure",
    ),
    Form(
        r"TOO MANY LOGIN TRIES \(\d+\) FROM (?P<address>\S+) FOR (?P<user>.{0,256}), (?P<reason>[^,]{1,256})",
        "login",
        "failure",
    ),
    Form(
        r"FAILED LOGIN \(\d+\) on '(?P<terminal>[^']*)'(?: from '(?P<address>[^']*)')? FOR '(?P<user>.{0,256})', (?P<reason>[^,]{1,256})",
        "login",
        "failure",
    ),
)
# OpenBSD usr.bin/doas/doas.c
_DOAS = (
    Form(r"(?P<user>\S+) ran command (?P<command>.*) as (?P<target>\S+) from .*", "doas"),
    Form(r"(?P<reason>failed (?:auth|password)) for (?P<user>\S+)", "doas", "failure"),
    Form(r"(?P<reason>command not permitted|failed command) for (?P<user>\S+): (?P<command>.*)", "doas", "failure"),
)
# shadow src/*.c
_JOINS = Form(r"add '(?P<target>[^']{1,256})' to group '(?P<group>[^']{1,256})'", "group-member-added")
_LEAVES = Form(r"delete '(?P<target>[^']{1,256})' from group '(?P<group>[^']{1,256})'", "group-member-removed")
_NEW_GROUP = Form(r"new group: name=(?P<group>[^,]{1,256}), GID=.*", "group-created")
_USERADD = (
    Form(r"new user: name=(?P<target>[^,]{1,256}), UID=.*", "user-created"),
    Form(r"failed adding user '(?P<target>[^']{1,256})', (?P<reason>.*)", "user-created", "failure"),
    _NEW_GROUP,
    _JOINS,
)
_USERDEL = (
    Form(r"delete user '(?P<target>[^']{1,256})'", "user-deleted"),
    Form(r"removed group '(?P<group>[^']{1,256})' owned by '[^']*'", "group-deleted"),
    _LEAVES,
)
_USERMOD = (
    Form(r"lock user '(?P<target>[^']{1,256})' password", "user-locked"),
    Form(r"unlock user '(?P<target>[^']{1,256})' password", "user-unlocked"),
    Form(r"change user (?:name )?'(?P<target>[^']{1,256})' .*", "user-changed"),
    _JOINS,
    _LEAVES,
)
_CHANGED = (
    Form(r"changed user '(?P<target>[^']{1,256})' .*", "user-changed"),
    Form(r"changed password expiry for (?P<target>\S+)", "user-changed"),
)
_GPASSWD = (
    Form(r"user (?P<target>\S+) added by (?P<user>\S+) to group (?P<group>\S+)", "group-member-added"),
    Form(r"user (?P<target>\S+) removed by (?P<user>\S+) from group (?P<group>\S+)", "group-member-removed"),
)
_PASSWD = (Form(r"password for '(?P<target>[^']{1,256})' changed by '(?P<user>[^']{1,256})'", "password-changed"),)
# OpenBSD sbin/iked/ikev2.c, policy.c, eap.c
_SPI = r"(?:spi=0x[0-9a-f]{1,16}: )?"
_IKE_PEER = r"(?P<address>[0-9A-Fa-f:.]{2,45}?)(?::(?P<port>\d{1,5}))?"
_IKED = (
    Form(
        rf"{_SPI}established peer {_IKE_PEER}\[(?P<user>[^\]]{{0,512}})\] local \S{{1,64}}\[[^\]]{{0,512}}\](?: assigned \S{{1,256}})? policy '.*",
        "ike-established",
    ),
    Form(
        rf"{_SPI}(?:\w{{1,64}}: )?(?P<reason>authentication failed) for (?P<user>\S{{1,512}})",
        "ike-authentication",
        "failure",
    ),
    Form(rf"{_SPI}(?:\w{{1,64}}: )?'(?P<user>[^']{{1,256}})' authenticated", "ike-authentication", fixed={"method": "eap"}),
    Form(
        rf"{_SPI}(?:\w{{1,64}}: )?'(?P<user>[^']{{1,256}})' (?P<reason>authentication failed)",
        "ike-authentication",
        "failure",
        {"method": "eap"},
    ),
    Form(
        rf"{_SPI}(?:\w{{1,64}}: )?(?P<reason>AUTHENTICATION_FAILED|authentication failed notification from peer|EAP failed|IKE_AUTH failed"
        r"|SA_INIT timeout|SA_INIT response failed|no proposal chosen \((?:IKE|CHILD) SA\))(?:, closing SA)?",
        "ike-authentication",
        "failure",
    ),
    Form(
        rf"{_SPI}sa_state: [A-Z_]{{2,16}} -> (?P<reason>CLOSED|CLOSING) from {_IKE_PEER} to \S{{1,64}} policy '.*", "ike-closed"
    ),
)
# Linux-PAM modules/pam_unix
_PAM_UNIX = (
    Form(
        r"pam_unix\([^:)]{1,64}:session\): session opened for user (?P<target>.{1,256}?)(?:\(uid=\d+\))? by (?P<user>[^(]{0,256})\(uid=\d+\)",
        "session-opened",
    ),
    Form(r"pam_unix\([^:)]{1,64}:session\): session closed for user (?P<user>.{1,256})", "session-closed"),
    Form(rf"pam_unix\([^:)]{{1,64}}:auth\): (?P<reason>authentication failure); {_PAM_FAILURE}", "authentication", "failure"),
    Form(r"pam_unix\([^:)]{1,64}:chauthtok\): password changed for (?P<target>.{1,256})", "password-changed"),
)
_FORMS: Mapping[str, Sequence[Form]] = {
    **dict.fromkeys(("sshd", "sshd-session", "sshd-auth"), _SSHD),  # the latter two since OpenSSH 9.8 and 10.0
    "sudo": _SUDO,
    "su": _SU,
    "login": _LOGIN,
    "doas": _DOAS,
    "useradd": _USERADD,
    "userdel": _USERDEL,
    "usermod": _USERMOD,
    "groupadd": (_NEW_GROUP,),
    "groupdel": (Form(r"group '(?P<group>[^']{1,256})' removed", "group-deleted"),),
    "gpasswd": _GPASSWD,
    "passwd": _PASSWD,
    "chsh": _CHANGED,
    "chfn": _CHANGED,
    "chage": _CHANGED,
    "iked": _IKED,
}
_FIELDS = Said._fields[2:]


def _reader(forms: Sequence[Form]) -> Reader:
    find = reader(forms, _FIELDS)
    plain = {form.action for form in forms if _PEER in form.pattern} - {
        form.action for form in forms if _PEER not in form.pattern
    }

    def read(message: str) -> Values | None:
        values = find(message)
        return values if values is None or values[0] in plain else _by_whom(Said._make(values))

    return read


def _by_whom(said: Said) -> Said:
    """One who acts on the own account, or is not known, is no second person; an empty address is none."""
    user, target = said.user, said.target
    if said.action in ("authentication", "session-opened") and user in (None, "", target):
        user, target = target or None, None
    address = said.address.partition("%")[0] if said.address else None
    return said._replace(user=user, target=target, address=address, terminal=said.terminal or None)


READERS: Mapping[str, Reader] = {program: _reader(forms) for program, forms in _FORMS.items()}
"""What each program's messages are read with."""
PAM_PREFIX = "pam_unix("
"""How the messages of pam_unix begin, whatever program it is loaded by."""
read_pam = _reader(_PAM_UNIX)


def read(program: str | None, message: str) -> Said | None:
    """What a program says about a login, an account or a privilege; None when it speaks of something else."""
    find = read_pam if message.startswith(PAM_PREFIX) else READERS.get(program or "")
    values = None if find is None else find(message)
    return None if values is None else Said._make(values)


def columns(rows: Sequence[Values], addresses: AddressCache) -> dict[str, Any]:
    """The columns of class auth of what messages say."""
    action, outcome, reason, method, user, target, group, command, terminal, address, port, key, certificate, application = zip(
        *rows, strict=True
    )
    later = {
        "user.target.name": target,
        "group.name": group,
        "process.command_line": command,
        "ringfence.auth.terminal": terminal,
        "ringfence.auth.key": key,
        "ringfence.auth.certificate": certificate,
        "ringfence.auth.application": application,
    }
    return (
        present(later)
        | end_columns("source", address, port, addresses)
        | {
            "event.action": action,
            "event.outcome": outcome,
            "event.reason": reason,
            "ringfence.auth.method": method,
            "user.name": user,
        }
    )
