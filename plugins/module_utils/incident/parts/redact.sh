# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# What leaves no host: keys and passwords, names of people, names and command lines of other processes. Numbers of users
# stay, as the audit needs them. A text in quotes stays one, so that JSON is JSON afterwards.
redact() {
	word="(password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?|cookie)"
	begin="-----BEGIN [A-Z ]*PRIVATE KEY-----"
	ending="-----END [A-Z ]*PRIVATE KEY-----"
	sed -E \
		-e "s#$begin.*$ending#[redacted: a private key]#g" \
		-e "/$begin/,/$ending/s#.*#[redacted: a private key]#" \
		-e "s#(://)[^/@[:space:]\"]+@#\\1[redacted]@#g" \
		-e "s#(authorization\"?[[:space:]]*[:=][[:space:]]*)\"([^\"\\\\]|\\\\.)*\"#\\1\"[redacted]\"#Ig" \
		-e "s#(authorization[[:space:]]*[:=][[:space:]]*)[^\"[:space:]][^\",}]*#\\1[redacted]#Ig" \
		-e "s#(bearer[[:space:]]+)[A-Za-z0-9._~+/=-]+#\\1[redacted]#Ig" \
		-e "s#([A-Za-z0-9_.-]*${word}[A-Za-z0-9_.-]*\"?[[:space:]]*[=:][[:space:]]*)\"([^\"\\\\]|\\\\.)*\"#\\1\"[redacted]\"#Ig" \
		-e "s#([A-Za-z0-9_.-]*${word}[A-Za-z0-9_.-]*[[:space:]]*[=:][[:space:]]*)[^][\",;&[:space:]{}]+#\\1[redacted]#Ig" \
		-e "s#eyJ[A-Za-z0-9_-]{8,}\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]*#[redacted]#g" \
		-e "s#AKIA[0-9A-Z]{16}#[redacted]#g" \
		-e "s#(command line: ).*#\\1[redacted]#I" \
		-e "s#((^|[^A-Za-z_])comm\"?[[:space:]]*[:=][[:space:]]*)\"[^\"]*\"#\\1\"[process]\"#Ig" \
		-e "s#((^|[^A-Za-z_])comm[[:space:]]*[:=][[:space:]]*)[^[:space:],\"]+#\\1[process]#Ig" \
		-e "s#(/home/|/Users/)[^/[:space:]\",:;)\\\\]+#\\1[user]#g" \
		-e "s#[A-Za-z0-9._%+-]+@(([A-Za-z0-9-]+\\.)+[A-Za-z]{2,})#[user]@\\1#g" \
		-e "s#((^|[^A-Za-z_])(user|username|login|logname|sudo_user)[[:space:]]*=[[:space:]]*\"?)[A-Za-z0-9._-]+#\\1[user]#Ig" \
		-e "s#([ug]id=[0-9]+)\\([^)]*\\)#\\1([user])#g"
}
