package cri

// tunedOptions is the options table of the handler tuned.
func tunedOptions(string) string {
	return ""
}
