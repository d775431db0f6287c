package table

// A refusal is something of Docker that is answered with an error on purpose.
// The reason names the test that sees the error.
type refusal struct{ what, why string }

var refused = refusals(map[string][]string{
	"Windows has it, Linux has not (test/parity/testdata/same.list)":      {"--io-maxbandwidth", "--io-maxiops"},
	"only `default` means anything here (test/parity/testdata/same.list)": {"--isolation"},
})

// refusals are of flags of run and create, by every name.
func refusals(by map[string][]string) []refusal {
	var all []refusal
	for why, flags := range by {
		for _, f := range flags {
			for _, c := range []string{"docker run", "docker create", "docker container run", "docker container create"} {
				all = append(all, refusal{c + " " + f, why})
			}
		}
	}
	return all
}
