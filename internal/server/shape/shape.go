// Package shape gives answers the form of the API version that a client asked
// for: which fields are there and, before 1.52, in which order.
//
// It is pure: a wire value and a version become a value whose JSON is what
// Docker Engine 29 was recorded to send. Only the server calls it. Versions are
// numbers: 1.52 is 1052. Versions below 1.40 get the forms of 1.40.
package shape

import (
	"bytes"
	"encoding/json"
)

// object is a JSON object; marshalled, its keys are in alphabetical order.
type object map[string]any

// toObject turns v into an object, numbers kept as they are written.
func toObject(v any) (object, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(&b)
	dec.UseNumber()
	var o object
	return o, dec.Decode(&o)
}

// sub returns the object under key, or nil.
func (o object) sub(key string) object {
	m, _ := o[key].(map[string]any)
	return m
}

// defaults sets every key of d that o does not have.
func (o object) defaults(d object) {
	if o == nil {
		return
	}
	for key, v := range d {
		if _, ok := o[key]; !ok {
			o[key] = v
		}
	}
}
