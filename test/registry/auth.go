package registry

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// authorized says whether a request carries what the registry asks for.
func (r *Registry) authorized(req *http.Request) bool {
	switch r.opts.Auth {
	case Basic:
		return r.knows(req)
	case Token:
		token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		r.mu.Lock()
		scope, valid := r.tokens[token]
		r.mu.Unlock()
		return ok && valid && covers(scope, req)
	}
	return true
}

func (r *Registry) knows(req *http.Request) bool {
	user, password, ok := req.BasicAuth()
	return ok && user == r.opts.Username && password == r.opts.Password
}

// covers compares the repository of a request with the scope of a token, such
// as repository:os/images:pull.
func covers(scope string, req *http.Request) bool {
	repo := repository(req.URL.Path)
	return repo == "" || slices.ContainsFunc(strings.Fields(scope), func(s string) bool {
		return strings.HasPrefix(s, "repository:"+repo+":")
	})
}

func repository(path string) string {
	path = strings.TrimPrefix(path, "/v2/")
	for _, part := range []string{"/manifests/", "/blobs/", "/referrers/"} {
		if i := strings.Index(path, part); i > 0 {
			return path[:i]
		}
	}
	return ""
}

func (r *Registry) challenge(w http.ResponseWriter, req *http.Request) {
	if r.opts.Auth == Basic {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
	} else {
		realm := r.opts.Realm
		if realm == "" {
			realm = base(req) + "/token"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="registry",scope="repository:%s:pull"`, realm, repository(req.URL.Path)))
	}
	http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
}

func base(req *http.Request) string {
	if req.TLS != nil {
		return "https://" + req.Host
	}
	return "http://" + req.Host
}

// serveToken is a token server (distribution's token authentication), by GET
// with basic auth, and by POST with an identity token (its OAuth 2 form).
func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request) {
	identity := r.opts.IdentityToken != "" && req.Method == http.MethodPost && req.FormValue("refresh_token") == r.opts.IdentityToken
	if r.opts.Username != "" && !r.knows(req) && !identity {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`, http.StatusUnauthorized)
		return
	}
	token := rand.Text()
	r.mu.Lock()
	r.tokens[token] = strings.Join(req.Form["scope"], " ")
	if req.Form == nil {
		r.tokens[token] = strings.Join(req.URL.Query()["scope"], " ")
	}
	r.issued++
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
}
