package shield

import (
	"fmt"
	"path"
	"strings"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command resolves the first word of a session's command: a path, or a name that is looked for in the session's PATH. It
// must lead to the measured binary; the result is the path to start, with its symlinks, since programs look at it.
func (s *Supervisor) Command(word, search, directory, binary string) (string, error) {
	var candidates []string
	switch {
	case path.IsAbs(word):
		candidates = []string{word}
	case strings.Contains(word, "/"):
		candidates = []string{path.Join(directory, word)}
	default:
		if search == "" {
			search = defaultPath
		}
		for _, folder := range strings.Split(search, ":") {
			candidates = append(candidates, path.Join("/", directory, folder, word))
			if path.IsAbs(folder) {
				candidates[len(candidates)-1] = path.Join(folder, word)
			}
		}
	}
	for _, candidate := range candidates {
		entry, err := s.verifiedPath(candidate)
		if err != nil {
			continue
		}
		if entry.Path != binary {
			return "", fmt.Errorf("the session's command starts %s (%s), but %s was measured: change the command, or rebuild with --binary=%s",
				word, entry.Path, binary, entry.Path)
		}
		return candidate, nil
	}
	return "", fmt.Errorf("the session's command starts %q, which is not found: the measured binary is %s", word, binary)
}
