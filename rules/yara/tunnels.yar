// Tools that carry connections through other protocols, by their command lines and names.

rule rf_tunnel_chisel
{
    meta:
        id = "15f8496c-07a5-5fc6-91de-2b8a0264006f"
        description = "chisel carries connections over HTTP."
        attack = "T1572 T1090.001"
        level = "high"
        score = 80
        false_positives = "Administrators who use chisel on purpose."
        response = "approve-quarantine"
    strings:
        $client = /chisel(_[a-z0-9_.]{1,24})?(\.exe)?["']? +client +(-{1,2}[a-z]|https?:\/\/|[a-z0-9.-]{1,80}:[0-9]{2,5})/ nocase
        $server = /chisel(_[a-z0-9_.]{1,24})?(\.exe)?["']? +server +[^\n]{0,100}--?(reverse|socks5|port|p |auth|authfile)/ nocase
        $socks = /https?:\/\/[^ ]{1,80} +R:([0-9.]{1,15}:)?([0-9]{1,5}:)?socks/
    condition:
        any of them
}

rule rf_tunnel_ligolo
{
    meta:
        id = "e19b4cd2-967a-508f-9ed1-52314f2fb262"
        description = "An agent or proxy of ligolo opens a tunnel into the network."
        attack = "T1572 T1090"
        level = "high"
        score = 85
        false_positives = "Tests of intrusion that were agreed on."
        response = "approve-quarantine"
    strings:
        $name = /ligolo(-ng)?[-_]?(agent|proxy)?(\.exe)?["']? +-{1,2}(connect|selfcert|autocert|laddr|bind|retry)/ nocase
        $agent = /agent(\.exe)?["']? +-connect +[^ ]{3,80}:[0-9]{2,5} +-(ignore-cert|retry|accept-fingerprint)/ nocase
        $interface = /ip +tuntap +add +[^\n]{0,60}ligolo/
    condition:
        any of them
}

rule rf_tunnel_frp
{
    meta:
        id = "305447c2-4173-5e12-9512-5862b86311a7"
        description = "frp publishes a service of this network elsewhere."
        attack = "T1572 T1090.002"
        level = "high"
        score = 75
        false_positives = "Administrators who use frp on purpose."
        response = "approve-quarantine"
    strings:
        $command = /frp(c|s)(\.exe)?("|')? +(-c|--config|tcp|udp|http|https|stcp|xtcp|tcpmux)/ nocase fullword
        $log = "start frpc service for config file" nocase
    condition:
        any of them
}

rule rf_tunnel_ngrok
{
    meta:
        id = "a3c2816a-d56d-5324-a667-e3fb504c1833"
        description = "ngrok publishes a service of this network, by its command line or the names that it asks for."
        attack = "T1572 T1102"
        level = "medium"
        score = 70
        false_positives = "Developers who show their work to others."
        response = "alert"
    strings:
        $command = /ngrok(\.exe)?["']? +(http|tcp|tls|start|tunnel|config +add-authtoken|authtoken) +[^ ]/ nocase
        $name = /(tunnel(\.[a-z]{2})?\.ngrok\.com|connect(\.[a-z]{2})?\.ngrok-agent\.com|\.ngrok-free\.app|\.ngrok\.app|\.ngrok\.io)/ nocase
    condition:
        any of them
}

rule rf_tunnel_dnscat
{
    meta:
        id = "27b1ca17-3d76-5d3b-963d-6c2bb0dc9f18"
        description = "dnscat2 carries a shell over DNS."
        attack = "T1071.004 T1572"
        level = "critical"
        score = 90
        false_positives = "Tests of intrusion that were agreed on."
        response = "approve-quarantine"
    strings:
        $command = /dnscat2?(\.exe|\.rb)?["']? +[^\n]{0,60}--?(dns|secret|host|command)[ =]/ nocase
        $options = /--dns[ =](server|domain|port|type)=[^ ]{1,80}[^\n]{0,80}--secret[ =]/
        $powershell = "Start-Dnscat2" nocase
    condition:
        any of them
}

rule rf_tunnel_iodine
{
    meta:
        id = "fec28548-ea26-5e46-9083-aa793ac82e41"
        description = "iodine carries IP over DNS."
        attack = "T1071.004 T1572"
        level = "high"
        score = 85
        false_positives = "Travellers who use their own server from outside."
        response = "approve-quarantine"
    strings:
        $command = /iodined?(\.exe)?["']? +(-[a-zA-Z]{1,3}( +[^ -][^ ]{0,40})? +){0,8}(-[fPcrTOLImzDd]+ +)[^\n]{0,80}[a-z0-9-]\.[a-z]{2,}/
        $log = /iodined?\[[0-9]{1,7}\]: +(opened dns|version|accepted password|started)/ nocase
    condition:
        any of them
}

rule rf_tunnel_socat_shell
{
    meta:
        id = "4329dd0f-7aca-5de4-9b79-f78e5fc5c6cf"
        description = "socat ties a shell to a connection."
        attack = "T1059.004 T1095"
        level = "critical"
        score = 90
        false_positives = "Consoles of machines that are served with socat on purpose."
        response = "approve-quarantine"
    strings:
        $there = /socat +[^\n]{0,120}(tcp[46]?|openssl|udp[46]?|tcp[46]?-listen|openssl-listen|sctp):[^\n]{1,120} +(exec|system):["']?(\/[a-z\/]{0,20})?(ba|z|da|k|c)?sh/ nocase
        $back = /socat +[^\n]{0,120}(exec|system):["']?(\/[a-z\/]{0,20})?(ba|z|da|k|c)?sh[^\n]{0,80} +(tcp[46]?|openssl|udp[46]?|tcp[46]?-listen|openssl-listen|sctp):/ nocase
    condition:
        any of them
}

rule rf_reverse_shell
{
    meta:
        id = "ab941a1e-bc80-58e9-867e-1ca69a1ec480"
        description = "A shell is tied to a connection that goes out."
        attack = "T1059.004 T1095"
        level = "critical"
        score = 90
        false_positives = "Checks of a port that read from /dev/tcp without a shell are not meant."
        response = "approve-quarantine"
    strings:
        $bash = /(ba|z|k)?sh +-i +[^\n]{0,10}>& *\/dev\/(tcp|udp)\/[^ ]{3,80}\/[0-9]{1,5}/
        $exec = /exec +[0-9]{1,3}<> *\/dev\/(tcp|udp)\/[^\n]{3,120}(sh|cat) *<&/
        $netcat = /n(c|cat)(\.exe|\.traditional|\.openbsd)? +[^\n]{0,60}(-e|-c|--exec|--sh-exec) *["']?(\/bin\/|\/usr\/bin\/)?((ba|z|da)?sh|cmd(\.exe)?|powershell(\.exe)?)/
        $fifo = /mkfifo +[^\n;|]{1,60}[;&|]+[^\n]{0,60}sh +-i[^\n]{0,20}\| *(nc|ncat|openssl|telnet) /
        $python = /socket\.socket\([^\n]{0,200}(os\.dup2|pty\.spawn|subprocess\.(call|Popen|run))\(/
        $perl = /use +Socket;[^\n]{0,200}exec *[({] *["']\/bin\/(ba)?sh/
    condition:
        any of them
}
