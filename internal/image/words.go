package image

import (
	"strings"

	"gantry/internal/errs"
)

// keyValues reads "KEY=value …" with shell-like quotes, or the old form
// "KEY value" of one pair.
func keyValues(command, text string) ([][2]string, error) {
	words, err := splitWords(text)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", command, err)
	}
	if !strings.Contains(words[0], "=") {
		key, value := cutSpace(text)
		if value == "" {
			return nil, errs.New(errs.Invalid, "%s must have two arguments", command)
		}
		return [][2]string{{unquote(key), value}}, nil
	}
	var pairs [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, errs.New(errs.Invalid, "Syntax error - can't find = in %q. Must be of the form: name=value", w)
		}
		key, value = unquote(key), unquote(value)
		if key == "" {
			return nil, errs.New(errs.Invalid, "%s names can not be blank", command)
		}
		pairs = append(pairs, [2]string{key, value})
	}
	return pairs, nil
}

// splitWords splits text at white space that is neither quoted nor escaped. The
// quotes stay.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, escaped, in := byte(0), false, false
	for i := range len(text) {
		c := text[i]
		switch {
		case escaped:
			escaped = false
		case c == '\\' && quote != '\'':
			escaped = true
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == ' ' || c == '\t':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
			continue
		}
		in = true
		word.WriteByte(c)
	}
	if quote != 0 {
		return nil, errs.New(errs.Invalid, "unterminated quote in %q", text)
	}
	return append(words, word.String()), nil
}

// unquote takes quotes and escapes out of a word, as a shell does.
func unquote(word string) string {
	var out strings.Builder
	quote := byte(0)
	for i := 0; i < len(word); i++ {
		c := word[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(word):
			next := word[i+1]
			if quote == '"' && !strings.ContainsRune(`"\$`, rune(next)) {
				out.WriteByte(c) // stays, as in a shell
			}
			out.WriteByte(next)
			i++
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}
