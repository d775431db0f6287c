package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
)

// eachJSON hands the values of a stream to fn as they come, until the stream or
// ctx ends or fn fails.
func eachJSON[T any](ctx context.Context, r io.Reader, fn func(T) error) error {
	dec := json.NewDecoder(r)
	for {
		var v T
		err := dec.Decode(&v)
		switch {
		case err == nil:
			err = fn(v)
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}
