package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"gantry/internal/errs"
)

// Recover aborts the uploads in parts that a server which was killed has left:
// the service keeps their parts for ever, and no list of objects shows them. A
// service that can't list them keeps them.
func (b *Bucket) Recover(ctx context.Context) error {
	q := url.Values{"uploads": {""}, "prefix": {b.Prefix}}
	for {
		resp, err := b.do(ctx, call{method: http.MethodGet, query: q})
		if err != nil {
			return ctx.Err()
		}
		var page struct {
			IsTruncated        bool
			NextKeyMarker      string
			NextUploadIdMarker string //nolint:revive // the protocol's name
			Upload             []struct {
				Key      string
				UploadId string //nolint:revive // the protocol's name
			}
		}
		err = errors.Join(xml.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(&page), resp.Body.Close())
		if err != nil {
			return errs.New(errs.Unavailable, "s3: list of uploads: %w", err)
		}
		for _, u := range page.Upload {
			key, ok := strings.CutPrefix(u.Key, b.Prefix)
			if !ok || key == "" {
				continue
			}
			resp, err := b.do(ctx, call{method: http.MethodDelete, key: key, query: url.Values{"uploadId": {u.UploadId}}})
			if err == nil {
				err = discard(resp)
			}
			if err != nil && !errs.Is(err, errs.NotFound) {
				return err
			}
		}
		if !page.IsTruncated || page.NextKeyMarker == "" {
			return nil
		}
		q.Set("key-marker", page.NextKeyMarker)
		q.Set("upload-id-marker", page.NextUploadIdMarker)
	}
}
