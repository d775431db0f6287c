package daemon

import (
	"context"
	"net/http"
	"time"

	"gantry/internal/config"
	"gantry/internal/errs"
	"gantry/internal/plugin"
	"gantry/internal/server"
)

// authorizer asks the authorization plugins of the configuration, by the protocol
// of docs.docker.com/engine/extend/plugins_authorization. One that can't be
// asked denies.
type authorizer struct {
	plugins *plugin.Plugins
	config  func() *config.Config
}

// authorizeTime bounds how long a plugin may take to decide.
const authorizeTime = 10 * time.Second

type authorization struct {
	User               string            `json:"User,omitempty"`
	UserAuthNMethod    string            `json:"UserAuthNMethod,omitempty"`
	RequestMethod      string            `json:"RequestMethod,omitempty"`
	RequestURI         string            `json:"RequestUri,omitempty"`
	RequestBody        []byte            `json:"RequestBody,omitempty"`
	RequestHeaders     map[string]string `json:"RequestHeaders,omitempty"`
	ResponseBody       []byte            `json:"ResponseBody,omitempty"`
	ResponseHeaders    map[string]string `json:"ResponseHeaders,omitempty"`
	ResponseStatusCode int               `json:"ResponseStatusCode,omitempty"`
}

// On says whether there are any.
func (a authorizer) On() bool { return len(a.config().AuthorizationPlugins) > 0 }

// Request asks whether a request may be carried out.
func (a authorizer) Request(ctx context.Context, e *server.Exchange) error {
	return a.ask(ctx, "AuthZPlugin.AuthZReq", exchanged(e))
}

// Answer asks whether a client may have an answer.
func (a authorizer) Answer(ctx context.Context, e *server.Exchange) error {
	in := exchanged(e)
	in.ResponseBody, in.ResponseStatusCode, in.ResponseHeaders = e.AnswerBody, e.Status, firsts(e.AnswerHeader)
	return a.ask(ctx, "AuthZPlugin.AuthZRes", in)
}

func exchanged(e *server.Exchange) authorization {
	return authorization{
		User: e.User, UserAuthNMethod: e.Method, RequestMethod: e.Verb, RequestURI: e.URI, RequestBody: e.Body, RequestHeaders: firsts(e.Header),
	}
}

// firsts are the headers as plugins read them, without credentials.
func firsts(h http.Header) map[string]string {
	out := map[string]string{}
	for k, v := range h {
		if len(v) > 0 && k != "X-Registry-Auth" && k != "X-Registry-Config" && k != "Authorization" {
			out[k] = v[0]
		}
	}
	return out
}

func (a authorizer) ask(ctx context.Context, method string, in authorization) error {
	for _, name := range a.config().AuthorizationPlugins {
		ctx, cancel := context.WithTimeout(ctx, authorizeTime)
		var out struct {
			Allow bool
			Msg   string
		}
		err := a.plugins.Call(ctx, name, method, in, &out)
		cancel()
		if err != nil {
			return errs.New(errs.Denied, "plugin %s failed with error: %w", name, err)
		}
		if !out.Allow {
			return errs.New(errs.Denied, "authorization denied by plugin %s: %s", name, out.Msg)
		}
	}
	return nil
}
