// Tools of intruders, by their command lines and by what they leave on the hosts that they reach.

rule rf_tool_mimikatz
{
    meta:
        id = "5369d498-d46a-5a63-bcb4-7b11bf8f86b1"
        description = "Commands of mimikatz, whatever the program is called."
        attack = "T1003.001 T1003.006 T1558.001"
        level = "critical"
        score = 95
        false_positives = "Texts about mimikatz, such as reports of a virus scanner."
        response = "approve-quarantine"
    strings:
        $sekurlsa = /sekurlsa::(logonpasswords|minidump|pth|tickets|ekeys|krbtgt|wdigest|msv)/ nocase
        $lsadump = /lsadump::(sam|secrets|lsa|dcsync|dcshadow|cache|trust|zerologon)/ nocase
        $kerberos = /kerberos::(golden|ptt|ptc|list|purge|silver)/ nocase
        $other = /(privilege::debug|token::elevate|crypto::certificates|vault::cred|misc::skeleton|dpapi::masterkey)/ nocase
        $powershell = "Invoke-Mimikatz" nocase
    condition:
        any of them
}

rule rf_tool_impacket
{
    meta:
        id = "061e2098-f560-584c-a932-c36556786be8"
        description = "A script of Impacket runs here."
        attack = "T1021.002 T1047 T1003.003 T1558.003"
        level = "high"
        score = 85
        false_positives = "Administrators of mixed networks who use these scripts on purpose."
        response = "approve-quarantine"
    strings:
        $script = /(psexec|wmiexec|smbexec|atexec|dcomexec|secretsdump|getuserspns|getnpusers|getadusers|ticketer|ntlmrelayx|mssqlclient|gettgt|getst|lookupsid|samrdump|reg|services|addcomputer)\.py["']? +[^\n]{0,120}(@|-hashes|-k |-no-pass|-dc-ip|-target|-t )/ nocase
        $package = /impacket-(psexec|wmiexec|smbexec|atexec|dcomexec|secretsdump|getuserspns|getnpusers|ntlmrelayx|ticketer|mssqlclient|smbserver|lookupsid|gettgt|getst)/ nocase
    condition:
        any of them
}

rule rf_tool_remote_command_output
{
    meta:
        id = "76a3d842-b50d-5fe2-aea7-3b37294f8e99"
        description = "A command writes its output to an administrative share of its own host, as remote execution over WMI, services or tasks does."
        attack = "T1047 T1021.002 T1569.002"
        level = "critical"
        score = 90
        false_positives = "Tools for administration that are built upon the same scripts."
        response = "approve-quarantine"
    strings:
        $share = /cmd(\.exe)? +\/q +\/c +[^\n]{1,400}1> *\\\\(127\.0\.0\.1|localhost)\\(ADMIN|C)\$\\[^\n]{1,60}2>&1/ nocase
        $service = /%COMSPEC% +\/Q +\/c +echo +[^\n]{1,400}\\(127\.0\.0\.1|localhost)\\[A-Z]\$\\__output/ nocase
        $task = /cmd\.exe +\/C +[^\n]{1,400}> *%windir%\\Temp\\[A-Za-z]{8}\.tmp 2>&1/ nocase
    condition:
        any of them
}

rule rf_tool_netexec
{
    meta:
        id = "094be235-5e0a-5e56-8427-05dfd29d06ea"
        description = "NetExec or CrackMapExec tries accounts or commands on many hosts."
        attack = "T1021.002 T1110.003 T1003.002"
        level = "high"
        score = 85
        false_positives = "Tests of intrusion that were agreed on."
        response = "approve-quarantine"
    strings:
        $command = /(nxc|netexec|crackmapexec|cme)(\.exe|\.py)?["']? +(smb|winrm|ldap|mssql|ssh|rdp|wmi|ftp|vnc|nfs) +[^\n]{0,200}-(u|p|h|x|m|-shares|-sam|-lsa|-ntds|-users|-pass-pol|-rid-brute)/ nocase
    condition:
        $command
}

rule rf_tool_rubeus
{
    meta:
        id = "9adcacf4-e906-5e2d-ac83-8dd3927afb74"
        description = "Rubeus asks for or forges Kerberos tickets."
        attack = "T1558.003 T1558.004 T1550.003"
        level = "critical"
        score = 90
        false_positives = "Texts about Rubeus."
        response = "approve-quarantine"
    strings:
        $name = /rubeus(\.exe)?["']? +(kerberoast|asreproast|asktgt|asktgs|ptt|dump|triage|golden|silver|diamond|s4u|monitor|harvest|renew|tgtdeleg|createnetonly|brute|hash)/ nocase
        $options = / (kerberoast|asreproast|asktgt|s4u|ptt|createnetonly) +\/[a-z0-9]{1,20}(:| )[^\n]{0,200}\/(nowrap|outfile|ticket|rc4|aes256|creduser|ptt|impersonateuser|format)/ nocase
    condition:
        any of them
}

rule rf_tool_bloodhound
{
    meta:
        id = "3ffb86bb-c4b0-5761-a225-949995e5c4c4"
        description = "A collector of BloodHound reads accounts, groups and sessions of a domain."
        attack = "T1087.002 T1069.002 T1482"
        level = "high"
        score = 80
        false_positives = "Reviews of a domain that were agreed on."
        response = "approve-quarantine"
    strings:
        $sharp = /(sharphound|azurehound|rusthound)(\.exe|\.ps1)?["']? +[^\n]{0,20}(-c|-d|--collectionmethods?|--domain|--stealth|--loop|list)[ =]/ nocase
        $python = /bloodhound(-ce)?-python +[^\n]{0,80}-(u|d|c|ns) / nocase
        $powershell = /Invoke-(BloodHound|SharpHound[0-9]?)/ nocase
        $options = /--?collectionmethods? +(all|dconly|session|loggedon|group|acl|default)/ nocase
    condition:
        any of them
}

rule rf_tool_evil_winrm
{
    meta:
        id = "c7332e89-2dec-50a8-84db-aa7384599d36"
        description = "evil-winrm opens a shell on a Windows host."
        attack = "T1021.006"
        level = "high"
        score = 85
        false_positives = "Administrators who use it from Linux on purpose."
        response = "approve-quarantine"
    strings:
        $command = /evil-winrm(\.rb|-py)?["']? +[^\n]{0,80}-(i|u|-ip|-user)[ =]/ nocase
    condition:
        $command
}

rule rf_tool_psexec
{
    meta:
        id = "29957e22-2e1a-5907-b62e-724e7f148bb0"
        description = "PsExec or a program like it runs a command on another host."
        attack = "T1569.002 T1021.002"
        level = "medium"
        score = 65
        false_positives = "Administrators who use PsExec: except their hosts and accounts."
        response = "alert"
    strings:
        $client = /(psexec|psexec64|paexec|remcom|csexec|xcmd)(\.exe)?["']? +([^\n]{0,60} )?\\\\[a-z0-9.*@-]{1,80}/ nocase
        $service = /(PSEXESVC|PAExec-[0-9]{1,6}-|RemComSvc|csexecsvc)[^\n]{0,40}\.exe/ nocase
        $pipe = /\\(PSEXESVC|RemCom_communicaton|RemCom_stdin|paexec)/ nocase
    condition:
        any of them
}

rule rf_tool_responder
{
    meta:
        id = "d5c23f4e-5638-5184-9f79-2aa3e769b9a8"
        description = "Responder or Inveigh answers names of others to get their passwords."
        attack = "T1557.001"
        level = "critical"
        score = 90
        false_positives = "Tests of intrusion that were agreed on."
        response = "approve-quarantine"
    strings:
        $command = /[Rr]esponder(\.py)?["']? +[^\n]{0,40}-(I|-interface)[ =]*[a-z]{2,}[a-z0-9.]{0,12}/
        $inveigh = /(Invoke-Inveigh|inveigh\.exe +-)/ nocase
    condition:
        any of them
}
