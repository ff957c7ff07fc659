package ready

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// hostPort returns the host, where it is an address, and the port of u, which must
// have one; the loopback address for no host.
func hostPort(u *url.URL) (string, error) {
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 {
		return "", errors.New("the port is missing, or not a number from 1 to 65535")
	}
	host := u.Hostname()
	if host == "" || host == "localhost" {
		host = loopback
	}
	address, err := netip.ParseAddr(host)
	if err != nil || address.Zone() != "" {
		return "", errors.New("the host is no address; a name is not looked up")
	}
	return netip.AddrPortFrom(address, uint16(port)).String(), nil
}

// Words splits a command as a shell would: at blanks, but not within quotes, and
// with backslashes that take the meaning from the character after them. It expands
// nothing. There is at least one word.
func Words(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	escaped := false
	for _, r := range command {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	switch {
	case quote != 0 || escaped:
		return nil, errors.New("a quote or backslash at its end is not finished")
	case inWord:
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("the command is missing")
	}
	return words, nil
}
