# SPDX-License-Identifier: BSD-2-Clause
# Sourced by the scripts that make a Debian root.

# Print the mirror of the host's own Debian sources.
mirror() {
	{
		sed -nE 's/^deb(-src)? +(\[[^]]*\] +)?(https?:[^ ]+) .*\bmain\b.*/\3/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
		awk 'function out() { if (uri && main && uri !~ /security/) print uri; uri = main = "" }
			/^[[:space:]]*$/ { out() } FNR == 1 { out() }
			/^URIs:/ { uri = $2 } /^Components:/ { main = / main( |$)/ } END { out() }' /etc/apt/sources.list.d/*.sources
	} 2>/dev/null | grep -v security | head -n 1
}
