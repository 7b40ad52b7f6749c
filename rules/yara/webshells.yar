// Web shells: code that runs what a request brings, and requests that talk to it.

rule rf_webshell_php_request
{
    meta:
        id = "f466732b-129d-5b29-a14a-d52a05c5543e"
        description = "PHP code runs what comes with a request."
        attack = "T1505.003 T1059"
        level = "high"
        score = 80
        false_positives = "Texts about web shells, such as tickets and mails of a scanner."
        response = "approve-quarantine"
    strings:
        $call = /(eval|assert|system|passthru|shell_exec|proc_open|popen|create_function)\s{0,4}\(\s{0,4}@?(base64_decode\s{0,4}\(\s{0,4}|stripslashes\s{0,4}\(\s{0,4}|urldecode\s{0,4}\(\s{0,4})?\$_(GET|POST|REQUEST|COOKIE|SERVER|FILES)/ nocase
        $packed = /(eval|assert)\s{0,4}\(\s{0,4}(gzinflate|gzuncompress|str_rot13)\s{0,4}\(\s{0,4}(base64_decode|str_rot13)/ nocase
    condition:
        any of them
}

rule rf_webshell_jsp_exec
{
    meta:
        id = "89cb5bca-48a2-5c31-be47-0247877348cd"
        description = "JSP code starts a program that a request names."
        attack = "T1505.003 T1059"
        level = "high"
        score = 80
        false_positives = "Source code of test pages in logs of a build."
        response = "approve-quarantine"
    strings:
        $exec = /getRuntime\(\)\s{0,4}\.\s{0,4}exec\s{0,4}\(\s{0,4}request\s{0,4}\.\s{0,4}getParameter/
        $builder = /new\s{1,4}ProcessBuilder\s{0,4}\([^;]{0,80}request\s{0,4}\.\s{0,4}getParameter/
    condition:
        any of them
}

rule rf_webshell_asp_request
{
    meta:
        id = "a656d218-1385-50b9-9265-e0dcaba49de5"
        description = "ASP or ASP.NET code runs what comes with a request."
        attack = "T1505.003 T1059"
        level = "high"
        score = 80
        false_positives = "Texts about web shells."
        response = "approve-quarantine"
    strings:
        $eval = /(eval|execute|executeglobal)\s{0,4}\(\s{0,4}request(\.item|\.form|\.querystring)?\s{0,4}[\[(]/ nocase
        $start = /process\.start\s{0,4}\([^;]{0,60}request(\.form|\.querystring)?\s{0,4}[\[(]/ nocase
    condition:
        any of them
}

rule rf_webshell_url_command
{
    meta:
        id = "b0f5f578-c725-5756-aa9f-fd9daa8e8ef9"
        description = "A request hands a shell command to a script by a parameter named for it."
        attack = "T1505.003 T1190"
        level = "high"
        score = 75
        false_positives = "Scanners that are allowed to look for such scripts."
        response = "alert"
    strings:
        $command = /\.(php|phtml|jsp|jspx|asp|aspx|ashx|cgi)\?([^ ]{0,60}&)?(cmd|exec|command|execute|shell|run)=(whoami|uname|ifconfig|ipconfig|hostname|netstat|cat(%20|\+)|ls(%20|\+|&)|dir(%20|\+|&)|net(%20|\+)|powershell|cmd(\.exe|%20|\+|\/c)|wget(%20|\+)|curl(%20|\+)|nc(%20|\+))/ nocase
        $script = /\.(php|phtml|jsp|jspx|asp|aspx|ashx|cgi)\?/ nocase
        $id = /(cmd|exec|command|execute|shell|run)=id/ nocase fullword
    condition:
        $command or ($script and $id)
}

rule rf_webshell_known_name
{
    meta:
        id = "475c77dd-f6d9-5144-8735-4c784e596294"
        description = "A path or agent carries the name of a web shell kit."
        attack = "T1505.003"
        level = "medium"
        score = 60
        false_positives = "Scanners that try such names: see whether the answer was 200."
        response = "alert"
    strings:
        $name = /\/(c99|r57|wso|b374k|p0wny|alfa|weevely|antsword|tunnel\.nosocket|reGeorg|neoreg)(shell|-shell|_shell)?[0-9.]{0,4}\.(php|phtml|jsp|jspx|asp|aspx|ashx)/ nocase
        $agent = "antSword/v" nocase
    condition:
        any of them
}
