package image

import (
	"bytes"
	"os/exec"
)

// compress packs data with a program of the machine.
func compress(program string, data []byte) ([]byte, error) {
	args := []string{"-c"}
	if program == "cat" {
		args = nil
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = bytes.NewReader(data)
	return cmd.Output()
}
