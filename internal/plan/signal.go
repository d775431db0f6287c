package plan

import (
	"strconv"
	"strings"

	"gantry/internal/errs"
)

// ParseSignal reads a signal as users write it: a number, or a name with or
// without SIG in any case, RTMIN+n and RTMAX-n included. The error is of kind
// Invalid with Docker's text.
func ParseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n > 0 && n <= sigRTMax {
			return n, nil
		}
		return 0, errs.New(errs.Invalid, "invalid signal: %s", s)
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := signalNumbers[name]; ok {
		return n, nil
	}
	if off, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n, err := strconv.Atoi(off); err == nil && n >= 0 && n <= 15 {
			return sigRTMin + n, nil
		}
	}
	if off, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		if n, err := strconv.Atoi(off); err == nil && n >= 0 && n <= 14 {
			return sigRTMax - n, nil
		}
	}
	return 0, errs.New(errs.Invalid, "invalid signal: %s", s)
}

// The C library keeps the first two real-time signals for itself (signal(7)).
const (
	sigRTMin = 34
	sigRTMax = 64
)

// signalNumbers are those of signal(7) for all architectures but MIPS, Alpha
// and SPARC.
var signalNumbers = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8,
	"KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16,
	"CHLD": 17, "CLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23,
	"XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30,
	"SYS": 31, "UNUSED": 31, "RTMIN": sigRTMin, "RTMAX": sigRTMax,
}
