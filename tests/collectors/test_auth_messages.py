"""What programs say about logins, accounts and privileges, line by line, and what is left to others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.auth_messages import Said, read
from collectors.syslog import SyslogDecoder
from ringfence.addresses import parse
from ringfence.batch import EventClass, Source, frames_of

PAM = "logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7 "
TAIL = "TTY=pts/0 ; PWD=/home/ann ; USER=root ; COMMAND=/usr/bin/id -u"
AS_ROOT = {"user": "ann", "target": "root", "terminal": "pts/0", "command": "/usr/bin/id -u"}
SAID: list[tuple[str, str, str, str, dict[str, str]]] = [
    # sudo
    ("sudo", f"     ann : {TAIL}", "sudo", "success", AS_ROOT),
    ("sudo", f"ann : {TAIL}", "sudo", "success", AS_ROOT),
    ("sudo", "ann : TTY=unknown ; PWD=/ ; USER=postgres ; GROUP=adm ; TSID=000001 ; ENV=A=b C=d ; COMMAND=/bin/sh -c 'a ; b'", "sudo", "success",
     {"user": "ann", "target": "postgres", "group": "adm", "terminal": "unknown", "command": "/bin/sh -c 'a ; b'"}),
    ("sudo", "ann : HOST=vm ; TTY=pts/0 ; CHROOT=/srv ; PWD=/a ; b ; USER=root ; COMMAND=list", "sudo", "success",
     {"user": "ann", "target": "root", "terminal": "pts/0", "command": "list"}),
    ("sudo", f"ann : 3 incorrect password attempts ; {TAIL}", "sudo", "failure", {**AS_ROOT, "reason": "3 incorrect password attempts"}),
    ("sudo", f"ann : 1 incorrect password attempt ; {TAIL}", "sudo", "failure", {**AS_ROOT, "reason": "1 incorrect password attempt"}),
    ("sudo", f"ann : user NOT in sudoers ; {TAIL}", "sudo", "failure", {**AS_ROOT, "reason": "user NOT in sudoers"}),
    ("sudo", f"ann : user NOT authorized on host ; {TAIL}", "sudo", "failure", {**AS_ROOT, "reason": "user NOT authorized on host"}),
    ("sudo", f"ann : command not allowed ; {TAIL}", "sudo", "failure", {**AS_ROOT, "reason": "command not allowed"}),
    ("sudo", f"ann : a password is required ; {TAIL}", "sudo", "failure", {**AS_ROOT, "reason": "a password is required"}),
    # su
    ("su", "(to root) ann on pts/0", "su", "success", {"user": "ann", "target": "root", "terminal": "pts/0"}),
    ("su", "FAILED SU (to root) ann on none", "su", "failure", {"user": "ann", "target": "root", "terminal": "none"}),
    ("su", "Successful su for root by ann", "su", "success", {"user": "ann", "target": "root"}),
    ("su", "FAILED su for root by ann", "su", "failure", {"user": "ann", "target": "root"}),
    ("su", "ann to root on /dev/ttyp0", "su", "success", {"user": "ann", "target": "root", "terminal": "/dev/ttyp0"}),
    ("su", "BAD SU ann to root on /dev/ttyp0", "su", "failure", {"user": "ann", "target": "root", "terminal": "/dev/ttyp0"}),
    # login
    ("login", "LOGIN ON tty1 BY ann", "login", "success", {"user": "ann", "terminal": "tty1"}),
    ("login", "LOGIN ON pts/3 BY ann FROM 192.0.2.7", "login", "success", {"user": "ann", "terminal": "pts/3", "address": "192.0.2.7"}),
    ("login", "ROOT LOGIN ON tty1", "login", "success", {"user": "root", "terminal": "tty1"}),
    ("login", "ROOT LOGIN ON pts/3 FROM host.example", "login", "success", {"user": "root", "terminal": "pts/3", "address": "host.example"}),
    ("login", "FAILED LOGIN 1 FROM tty1 FOR ann, Authentication failure", "login", "failure",
     {"user": "ann", "address": "tty1", "reason": "Authentication failure"}),
    ("login", "FAILED LOGIN SESSION FROM 192.0.2.7 FOR (unknown), User not known to the underlying authentication module", "login", "failure",
     {"user": "(unknown)", "address": "192.0.2.7", "reason": "User not known to the underlying authentication module"}),
    ("login", "TOO MANY LOGIN TRIES (3) FROM 192.0.2.7 FOR a, b, Have exhausted maximum number of retries for service", "login", "failure",
     {"user": "a, b", "address": "192.0.2.7", "reason": "Have exhausted maximum number of retries for service"}),
    ("login", "FAILED LOGIN (1) on '/dev/tty1' FOR 'ann', Authentication failure", "login", "failure",
     {"user": "ann", "terminal": "/dev/tty1", "reason": "Authentication failure"}),
    ("login", "FAILED LOGIN (2) on '/dev/pts/1' from '192.0.2.7' FOR 'ann', Authentication failure", "login", "failure",
     {"user": "ann", "terminal": "/dev/pts/1", "address": "192.0.2.7", "reason": "Authentication failure"}),
    # doas
    ("doas", "ann ran command /sbin/pfctl -f /etc/pf.conf as root from /home/ann", "doas", "success",
     {"user": "ann", "target": "root", "command": "/sbin/pfctl -f /etc/pf.conf"}),
    ("doas", "failed auth for ann", "doas", "failure", {"user": "ann", "reason": "failed auth"}),
    ("doas", "command not permitted for ann: reboot", "doas", "failure", {"user": "ann", "command": "reboot", "reason": "command not permitted"}),
    ("doas", "failed command for ann: reboot now", "doas", "failure", {"user": "ann", "command": "reboot now", "reason": "failed command"}),
    # PAM
    ("sshd", "pam_unix(sshd:session): session opened for user ann(uid=1001) by (uid=0)", "session-opened", "success", {"user": "ann"}),
    ("sudo", "pam_unix(sudo:session): session opened for user root(uid=0) by ann(uid=1001)", "session-opened", "success", {"user": "ann", "target": "root"}),
    ("su", "pam_unix(su-l:session): session opened for user root by ann(uid=1001)", "session-opened", "success", {"user": "ann", "target": "root"}),
    ("CRON", "pam_unix(cron:session): session opened for user root(uid=0) by root(uid=0)", "session-opened", "success", {"user": "root"}),
    ("login", "pam_unix(login:session): session opened for user ann by LOGIN(uid=0)", "session-opened", "success", {"user": "LOGIN", "target": "ann"}),
    ("su", "pam_unix(su:session): session closed for user root", "session-closed", "success", {"user": "root"}),
    ("sshd", f"pam_unix(sshd:auth): authentication failure; {PAM} user=root", "authentication", "failure",
     {"user": "root", "terminal": "ssh", "address": "192.0.2.7", "reason": "authentication failure"}),
    ("sshd", f"pam_unix(sshd:auth): authentication failure; {PAM}", "authentication", "failure",
     {"terminal": "ssh", "address": "192.0.2.7", "reason": "authentication failure"}),
    ("sshd", f"PAM 2 more authentication failures; {PAM} user=root", "authentication", "failure",
     {"user": "root", "terminal": "ssh", "address": "192.0.2.7", "reason": "2 more authentication failures"}),
    ("sshd", f"PAM 1 more authentication failure; {PAM} user=root", "authentication", "failure",
     {"user": "root", "terminal": "ssh", "address": "192.0.2.7", "reason": "1 more authentication failure"}),
    ("su", "pam_unix(su:auth): authentication failure; logname= uid=1001 euid=0 tty= ruser=ann rhost=  user=root", "authentication", "failure",
     {"user": "ann", "target": "root", "reason": "authentication failure"}),
    ("sudo", "pam_unix(sudo:auth): authentication failure; logname=ann uid=1001 euid=0 tty=/dev/pts/0 ruser=ann rhost=  user=ann", "authentication", "failure",
     {"user": "ann", "terminal": "/dev/pts/0", "reason": "authentication failure"}),
    ("chpasswd", "pam_unix(chpasswd:chauthtok): password changed for ann", "password-changed", "success", {"target": "ann"}),
    # accounts
    ("useradd", "new user: name=ann, UID=1001, GID=1002, home=/home/ann, shell=/bin/bash, from=/dev/pts/0", "user-created", "success", {"target": "ann"}),
    ("useradd", "new group: name=ann, GID=1002", "group-created", "success", {"group": "ann"}),
    ("useradd", "add 'ann' to group 'sudo'", "group-member-added", "success", {"target": "ann", "group": "sudo"}),
    ("useradd", "failed adding user 'ann', exit code: 9", "user-created", "failure", {"target": "ann", "reason": "exit code: 9"}),
    ("userdel", "delete user 'ann'", "user-deleted", "success", {"target": "ann"}),
    ("userdel", "removed group 'ann' owned by 'ann'", "group-deleted", "success", {"group": "ann"}),
    ("userdel", "delete 'ann' from group 'sudo'", "group-member-removed", "success", {"target": "ann", "group": "sudo"}),
    ("usermod", "add 'ann' to group 'sudo'", "group-member-added", "success", {"target": "ann", "group": "sudo"}),
    ("usermod", "delete 'ann' from group 'sudo'", "group-member-removed", "success", {"target": "ann", "group": "sudo"}),
    ("usermod", "change user 'ann' shell from '/bin/bash' to '/bin/sh'", "user-changed", "success", {"target": "ann"}),
    ("usermod", "change user name 'ann' to 'bob'", "user-changed", "success", {"target": "ann"}),
    ("usermod", "lock user 'ann' password", "user-locked", "success", {"target": "ann"}),
    ("usermod", "unlock user 'ann' password", "user-unlocked", "success", {"target": "ann"}),
    ("groupadd", "new group: name=web, GID=1001", "group-created", "success", {"group": "web"}),
    ("groupdel", "group 'web' removed", "group-deleted", "success", {"group": "web"}),
    ("gpasswd", "user ann added by root to group sudo", "group-member-added", "success", {"user": "root", "target": "ann", "group": "sudo"}),
    ("gpasswd", "user ann removed by root from group sudo", "group-member-removed", "success", {"user": "root", "target": "ann", "group": "sudo"}),
    ("passwd", "password for 'ann' changed by 'root'", "password-changed", "success", {"user": "root", "target": "ann"}),
    ("chsh", "changed user 'ann' shell to '/bin/bash'", "user-changed", "success", {"target": "ann"}),
    ("chage", "changed password expiry for ann", "user-changed", "success", {"target": "ann"}),
    # sshd, beside what tests/collectors/test_syslog.py shows
    ("sshd", "User ann from 192.0.2.7 not allowed because not listed in AllowUsers", "ssh-not-allowed", "failure",
     {"user": "ann", "address": "192.0.2.7", "reason": "not listed in AllowUsers"}),
    ("sshd-session", "User ann from host.example not allowed because none of user's groups are listed in AllowGroups", "ssh-not-allowed", "failure",
     {"user": "ann", "address": "host.example", "reason": "none of user's groups are listed in AllowGroups"}),
    ("sshd", "User ann from fe80::1%eth0 not allowed because shell /bin/none does not exist", "ssh-not-allowed", "failure",
     {"user": "ann", "address": "fe80::1", "reason": "shell /bin/none does not exist"}),
    ("sshd", "ROOT LOGIN REFUSED FROM 192.0.2.7 port 44", "ssh-not-allowed", "failure",
     {"user": "root", "address": "192.0.2.7", "port": "44", "reason": "ROOT LOGIN REFUSED"}),
    ("sshd", "Accepted publickey for ann from 192.0.2.7 port 44 ssh2: ED25519 SHA256:aHPqo55ccprA92JN", "ssh-login", "success",
     {"user": "ann", "method": "publickey", "address": "192.0.2.7", "port": "44", "key": "SHA256:aHPqo55ccprA92JN"}),
    ("sshd-session", "Accepted publickey for ann from 192.0.2.7 port 44 ssh2: ED25519-CERT SHA256:aHPqo55ccprA92JN ID ann@example (serial 7) CA RSA SHA256:zzzzzzzzz", "ssh-login", "success",
     {"user": "ann", "method": "publickey", "address": "192.0.2.7", "port": "44", "key": "SHA256:aHPqo55ccprA92JN", "certificate": "ann@example"}),
    ("sshd-session", "Failed publickey for ann from 192.0.2.7 port 44 ssh2: ED25519-CERT SHA256:aHPqo55ccprA92JN ID a from 203.0.113.1 port 1 ssh2: b (serial 0) CA RSA SHA256:zzzzzzzzz",
     "ssh-login", "failure", {"user": "ann", "method": "publickey", "address": "192.0.2.7", "port": "44", "key": "SHA256:aHPqo55ccprA92JN",
                              "certificate": "a from 203.0.113.1 port 1 ssh2: b"}),
    ("sshd", "Accepted keyboard-interactive/pam for ann from 192.0.2.7 port 44 ssh2", "ssh-login", "success",
     {"user": "ann", "method": "keyboard-interactive/pam", "address": "192.0.2.7", "port": "44"}),
    ("sshd", "Partial publickey for ann from 192.0.2.7 port 44 ssh2: ED25519 SHA256:aHPqo55ccprA92JN", "ssh-login-partial", "success",
     {"user": "ann", "method": "publickey", "address": "192.0.2.7", "port": "44", "key": "SHA256:aHPqo55ccprA92JN"}),
    ("sshd", "User ann not allowed because account is locked", "ssh-not-allowed", "failure", {"user": "ann", "reason": "account is locked"}),
    ("sshd-session", "fatal: Access denied for user ann by PAM account configuration [preauth]", "ssh-not-allowed", "failure",
     {"user": "ann", "reason": "PAM account configuration"}),
    ("sshd", "Authentication refused: bad ownership or modes for directory /home/ann", "ssh-not-allowed", "failure",
     {"reason": "bad ownership or modes for directory /home/ann"}),
    ("sshd", "error: Authentication key ED25519 SHA256:aHPqo55ccprA92JN revoked by file /etc/ssh/revoked", "ssh-key-refused", "failure",
     {"key": "SHA256:aHPqo55ccprA92JN", "reason": "revoked"}),
    ("sshd", "error: Certificate invalid: expired", "ssh-key-refused", "failure", {"reason": "expired"}),
    ("sshd", "fatal: Timeout before authentication for 192.0.2.7 port 44", "ssh-timeout", "failure",
     {"address": "192.0.2.7", "port": "44", "reason": "Timeout before authentication"}),
    ("sshd", "Timeout before authentication for connection from 192.0.2.7 to 10.0.0.1, pid = 4711", "ssh-timeout", "failure",
     {"address": "192.0.2.7", "reason": "Timeout before authentication"}),
    ("sshd", "Unable to negotiate with 192.0.2.7 port 44: no matching host key type found. Their offer: ssh-rsa [preauth]", "ssh-negotiation", "failure",
     {"address": "192.0.2.7", "port": "44", "reason": "no matching host key type found. Their offer: ssh-rsa"}),
    ("sshd", "banner exchange: Connection from 192.0.2.7 port 44: invalid format", "ssh-negotiation", "failure",
     {"address": "192.0.2.7", "port": "44", "reason": "invalid format"}),
    ("sshd", "drop connection #10 from [192.0.2.7]:46482 on [10.0.0.1]:22 past MaxStartups", "ssh-dropped", "failure",
     {"address": "192.0.2.7", "port": "46482", "reason": "past MaxStartups"}),
    ("sshd", "drop connection #0 from [192.0.2.7]:46482 on [10.0.0.1]:22 penalty: failed authentication", "ssh-dropped", "failure",
     {"address": "192.0.2.7", "port": "46482", "reason": "penalty: failed authentication"}),
    ("sshd", "srclimit_penalise: ipv4: new 192.0.2.7/32 deferred penalty of 5 seconds for penalty: failed authentication", "ssh-penalty", "failure",
     {"address": "192.0.2.7", "reason": "penalty: failed authentication"}),
    ("sshd", "srclimit_penalise: 192.0.2.7/32: activating ipv4 penalty of 18.071 seconds for penalty: failed authentication", "ssh-penalty", "failure",
     {"address": "192.0.2.7", "reason": "penalty: failed authentication"}),
    ("sshd-session", "Starting session: shell on pts/0 for ann from 192.0.2.7 port 44 id 0", "ssh-session-started", "success",
     {"user": "ann", "terminal": "pts/0", "address": "192.0.2.7", "port": "44"}),
    ("sshd-session", "Close session: user ann from 192.0.2.7 port 44 id 0", "ssh-session-closed", "success", {"user": "ann", "address": "192.0.2.7", "port": "44"}),
    ("sshd", "error: PAM: Authentication failure for illegal user x from 192.0.2.7", "authentication", "failure",
     {"user": "x", "address": "192.0.2.7", "reason": "Authentication failure"}),
    # iked
    ("iked", "spi=0x5b7ef38cf8dcd91c: established peer 192.0.2.7:500[FQDN/laptop.example] local 10.0.0.1:500[FQDN/gw.example] assigned 10.9.0.2 policy 'road' as responder (enc aes-128-gcm group curve25519 prf hmac-sha2-256)",
     "ike-established", "success", {"user": "FQDN/laptop.example", "address": "192.0.2.7", "port": "500"}),
    ("iked", "spi=0x5b7ef38cf8dcd91c: ikev2_ike_auth_recv: authentication failed for FQDN/laptop.example", "ike-authentication", "failure",
     {"user": "FQDN/laptop.example", "reason": "authentication failed"}),
    ("iked", "spi=0x5b7ef38cf8dcd91c: eap_parse: 'ann' authentication failed", "ike-authentication", "failure",
     {"user": "ann", "method": "eap", "reason": "authentication failed"}),
    ("iked", "spi=0x5b7ef38cf8dcd91c: eap_parse: 'ann' authenticated", "ike-authentication", "success", {"user": "ann", "method": "eap"}),
    ("iked", "spi=0x5b7ef38cf8dcd91c: sa_free: SA_INIT timeout", "ike-authentication", "failure", {"reason": "SA_INIT timeout"}),
    ("iked", "spi=0x5b7ef38cf8dcd91c: sa_state: ESTABLISHED -> CLOSED from 192.0.2.7:500 to 10.0.0.1:500 policy 'road'", "ike-closed", "success",
     {"address": "192.0.2.7", "port": "500", "reason": "CLOSED"}),
    ("sshd", "ROOT LOGIN REFUSED FROM host.example", "ssh-not-allowed", "failure",
     {"user": "root", "address": "host.example", "reason": "ROOT LOGIN REFUSED"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "message", "action", "outcome", "fields"), SAID, ids=[f"{said[0]}-{said[1][:60]}" for said in SAID]
)
def test_a_message_says_who_did_what(program: str, message: str, action: str, outcome: str, fields: dict[str, str]) -> None:
    assert read(program, message) == Said(action, outcome, **fields)


OTHER = [
    ("sudo", "ann : (command continued) --verbose"),
    ("sudo", "pam_unix(sudo:auth): conversation failed"),
    ("sudo", "ann : TTY=pts/0 ; PWD=/"),
    ("su", "+ pts/0 ann:root"),
    ("su", "pam_limits(su:session): Could not set limit for 'nofile' to soft=1024, hard=32768: Operation not permitted; uid=0,euid=0"),
    ("su", "'su root' failed for lonvick on /dev/pts/8"),
    ("sshd", "pam_unix(sshd:auth): check pass; user unknown"),
    ("sshd", "pam_unix(sshd:account): account ann has expired (account expired)"),
    ("sshd", "Server listening on 127.0.0.1 port 22."),
    ("useradd", "add 'ann' to shadow group 'sudo'"),
    ("groupadd", "group added to /etc/group: name=web, GID=1001"),
    ("groupdel", "group 'web' removed from /etc/group"),
    ("userdel", "removed shadow group 'ann' owned by 'ann'"),
    ("cron", "ann : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/true"),
    ("doas-clone", "failed auth for ann"),
    (None, "(to root) ann on pts/0"),
    ("login", ""),
    ("iked", "spi=0x5b7ef38cf8dcd91c: recv IKE_SA_INIT req 0 peer 192.0.2.7:500 local 10.0.0.1:500, 518 bytes, policy 'road'"),
    ("sshd", "beginning MaxStartups throttling"),
    ("sshd", "Accepted certificate ID \"ann\" (serial 7) signed by RSA CA SHA256:zzzzzzzzz via /etc/ssh/ca.pub"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "message"), OTHER)
def test_what_else_programs_say_is_left_to_others(program: str | None, message: str) -> None:
    assert read(program, message) is None


def rows(*lines: str) -> list[dict[str, Any]]:
    decoded = SyslogDecoder(year=2026).feed(frames_of([line.encode() + b"\n" for line in lines], Source("auth.log", 1)))
    assert not decoded.problems
    return decoded.rows[EventClass.AUTH].to_dicts()


def test_a_message_becomes_a_row_of_class_auth() -> None:
    (row,) = rows("<86>Nov 25 08:35:42 vm sudo[42]:      ann : " + TAIL)

    assert (row["event.action"], row["event.outcome"], row["user.name"], row["user.target.name"]) == (
        "sudo",
        "success",
        "ann",
        "root",
    )
    assert (row["process.command_line"], row["ringfence.auth.terminal"], row["process.name"]) == (
        "/usr/bin/id -u",
        "pts/0",
        "sudo",
    )
    assert row["source.ip"] is None


def test_an_address_becomes_a_number_and_a_host_name_none() -> None:
    found = rows(
        *(f"<86>Nov 25 08:35:42 vm login: LOGIN ON pts/3 BY ann FROM {name}" for name in ("192.0.2.7", "host.example")),
        "<86>Nov 25 08:35:42 vm login: LOGIN ON tty1 BY ann",
    )

    assert [row["source.ip"] for row in found] == [parse("192.0.2.7"), None, None]


def test_messages_of_many_programs_in_one_block_do_not_mix() -> None:
    found = rows(
        "<86>Nov 25 08:35:42 vm useradd[1]: new group: name=web, GID=1001",
        "<86>Nov 25 08:35:42 vm su[2]: FAILED SU (to root) ann on pts/0",
        "<86>Nov 25 08:35:42 vm sshd[3]: Invalid user x from 192.0.2.7 port 4",
    )

    assert [(row["group.name"], row["user.target.name"], row["source.port"]) for row in found] == [
        ("web", None, None),
        (None, "root", None),
        (None, None, 4),
    ]


_PIECES = [
    *sorted({word for _, message, *_ in SAID for word in message.split(" ")}),
    " ; ",
    "; USER=",
    " ",
    "(",
    "'",
    "\n",
    "\x00",
    "é",
]


@given(st.sampled_from(sorted({said[0] for said in SAID})), st.lists(st.sampled_from(_PIECES), max_size=30))
def test_any_words_are_read_or_left(program: str, words: list[str]) -> None:
    said = read(program, " ".join(words))

    assert said is None or (said.action and said.outcome in ("success", "failure"))


_SAFE = st.text(
    st.characters(min_codepoint=48, max_codepoint=122, exclude_characters=":;<=>?@[\\]^`'"), min_size=1, max_size=20
)


@given(_SAFE, _SAFE, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_decoding_gives_back_what_sudo_was_asked_for(user: str, target: str, command: str) -> None:
    said = read("sudo", f"{user:>8} : TTY=pts/0 ; PWD=/ ; USER={target} ; COMMAND={command}")

    assert said == Said("sudo", "success", user=user, target=target, terminal="pts/0", command=command)
