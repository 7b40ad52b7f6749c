// Attacks that stand in what is logged: requests, agents, names, command lines.

rule rf_payload_log4shell
{
    meta:
        id = "dd68bfbf-1fcc-5d4d-974d-0f76bc2e6808"
        description = "A JNDI look-up in text that a server may log (CVE-2021-44228), plain or disguised."
        attack = "T1190 T1059"
        level = "high"
        score = 80
        false_positives = "Scanners: the attack counts when the target opens a connection to the named server."
        response = "alert"
    strings:
        $plain = /\$\{jndi:(ldap|ldaps|rmi|dns|iiop|nis|corba|http|https|\$\{)/ nocase
        $encoded = /%24%7bjndi(:|%3a)/ nocase
        $parts = /\$\{(\$\{[^}]{1,40}\}|[jndi]){1,8}[^}]{0,20}(\$\{[^}]{1,40}\}|:)[^ ]{0,120}:?\/\// nocase
        $nested = /\$\{(lower|upper|env:[^:}]{0,20}|sys:[^:}]{0,20}|date:'[^}]{1,8}|base64|::-|:-)[^}]{0,12}\}[^ ]{0,80}(ldap|rmi|ndi|\}:|:\/\/)/ nocase
    condition:
        $plain or $encoded or ($parts and $nested)
}

rule rf_payload_shellshock
{
    meta:
        id = "594fcffb-f060-52e6-954e-1ee2f9f71103"
        description = "A function definition that old shells run on from the environment (CVE-2014-6271)."
        attack = "T1190 T1059.004"
        level = "high"
        score = 80
        false_positives = "Scanners: old, but still tried everywhere."
        response = "alert"
    strings:
        $function = /\(\) {0,3}\{ {0,3}(:|_|[a-z]{1,12}) {0,3}; {0,3}\} {0,3};/
        $reset = /\(\) {0,3}\{ {0,3}_; {0,3}\} {0,3}>_\[\$/
    condition:
        any of them
}

rule rf_payload_path_traversal
{
    meta:
        id = "a31933ac-69e2-526d-9807-34394d9c6bf4"
        description = "A path climbs out of its folder to a file that tells secrets."
        attack = "T1190 T1083"
        level = "high"
        score = 75
        false_positives = "Scanners: see whether the answer was 200."
        response = "alert"
    strings:
        $up1 = "../../"
        $up2 = "..\\..\\"
        $up3 = "..%2f..%2f" nocase
        $up4 = "..%5c..%5c" nocase
        $up5 = "%2e%2e%2f%2e%2e%2f" nocase
        $up6 = "%2e%2e/%2e%2e/" nocase
        $up7 = "%252e%252e%252f" nocase
        $up8 = "..%252f..%252f" nocase
        $up9 = "....//....//"
        $up10 = ".%2e/.%2e/" nocase
        $unix = /(etc(\/|%2f|%252f)(passwd|shadow|hosts)|proc(\/|%2f)self(\/|%2f)(environ|cmdline)|\.ssh(\/|%2f)id_(rsa|ed25519))/ nocase
        $windows = /((\\|\/|%5c|%2f)win\.ini|(\\|\/|%5c|%2f)boot\.ini|system32(\\|\/|%5c|%2f)(config|drivers))/ nocase
    condition:
        any of ($up*) and ($unix or $windows)
}

rule rf_payload_powershell_encoded
{
    meta:
        id = "99e336d4-f571-5cac-974d-0bdd1d6f8af1"
        description = "PowerShell code in Base64 that fetches or runs other code."
        attack = "T1059.001 T1027.010 T1105"
        level = "high"
        score = 80
        false_positives = "Tools for the management of software that wrap their scripts so."
        response = "approve-quarantine"
    strings:
        $a = "DownloadString(" wide base64
        $b = "DownloadFile(" wide base64
        $c = "Net.WebClient" wide base64
        $d = "Invoke-Expression" wide base64
        $e = "FromBase64String(" wide base64
        $f = "Net.Sockets.TCPClient" wide base64
        $g = "Invoke-WebRequest" wide base64
        $h = "VirtualAlloc" wide base64
        $i = "AmsiUtils" wide base64
    condition:
        any of them
}

rule rf_payload_powershell_cradle
{
    meta:
        id = "63cfc2b1-fc46-52c8-ad5a-d4aa998f6024"
        description = "PowerShell fetches code and runs it at once."
        attack = "T1059.001 T1105"
        level = "high"
        score = 75
        false_positives = "Installers that are documented so, such as those of package managers."
        response = "approve-quarantine"
    strings:
        $run = /(iex|invoke-expression)[ (&]{1,4}[^\n]{0,60}(downloadstring|downloaddata|invoke-webrequest|invoke-restmethod|iwr |irm )/ nocase
        $pipe = /(downloadstring\(|downloaddata\(|invoke-webrequest |invoke-restmethod |iwr |irm )[^\n]{0,160}\| {0,3}(iex|invoke-expression)/ nocase
    condition:
        any of them
}

rule rf_payload_code_in_url
{
    meta:
        id = "e2e13a63-ba38-51cc-9173-c65b82b81c7f"
        description = "A request carries PHP, Java or template code for the server to run."
        attack = "T1190 T1059"
        level = "high"
        score = 75
        false_positives = "Scanners; sites that teach programming."
        response = "alert"
    strings:
        $php = /[?&][^= \n]{1,60}=[^ \n]{0,120}(eval|assert|system|passthru|shell_exec|call_user_func|phpinfo|base64_decode)(\(|%28)/ nocase
        $open = /[?&][^= \n]{1,60}=[^ \n]{0,60}(<\?php|%3c%3fphp|php:\/\/(input|filter)|php%3a%2f%2f(input|filter)|data:\/\/text\/plain;base64|expect:\/\/)/ nocase
        $ini = /auto_prepend_file(=|%3d)php(:|%3a)/ nocase
        $java = /[?&][^= \n]{1,60}=[^ \n]{0,120}(getRuntime(\(\)|%28%29)\.exec(\(|%28)|java\.lang\.Runtime[^ \n]{0,40}exec|ProcessBuilder(\(|%28))/ nocase
        $spring = /class(\.|%2e)module(\.|%2e)classLoader/ nocase
        $ognl = /(%24%7b|%25%7b|\$\{|%\{)[^ \n]{0,20}(%23|#)(_memberAccess|context|a=|application|parameters)/ nocase
        $template = /(\{\{|%7b%7b)[^ \n]{0,40}(__class__|__globals__|__subclasses__|config\.items|cycler\.__init__)/ nocase
    condition:
        any of them
}

rule rf_payload_command_in_url
{
    meta:
        id = "8c6225e1-7e85-5c5b-91ad-49ef4efa25c0"
        description = "A request adds a shell command to a parameter."
        attack = "T1190 T1059.004"
        level = "high"
        score = 75
        false_positives = "Scanners: see whether the host then starts such programs."
        response = "alert"
    strings:
        $fetch = /[?&][^= \n]{1,60}=[^ \n]{0,200}(;|%3b|\||%7c|`|%60|\$\(|%24%28|%0a|&&|%26%26)(%20|\+)?(wget|curl|tftp|busybox|chmod|nc|bash|sh)(%20|\+|\$\{IFS\}|%24%7bIFS%7d)/ nocase
        $temp = /cd(%20|\+)(\/|%2f)tmp(;|%3b)[^ \n]{0,60}(rm|wget|curl|tftp)/ nocase
    condition:
        any of them
}
