package table

// A refusal is something of Docker that is answered with an error on purpose.
type refusal struct{ what, why string }

var refused = []refusal{}
