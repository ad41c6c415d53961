package bmcsim

import (
	"crypto/subtle"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// sessionTimeout is how long an unused session lasts (SessionService.SessionTimeout).
const sessionTimeout = 30 * time.Minute

type session struct {
	id, token string
	used      time.Time
	created   time.Time
}

func sessionsPath() string { return root + "/SessionService/Sessions" }

// sessionOf finds an open session by its token. The lock is held.
func (b *BMC) sessionOf(token string) *session {
	b.expire()
	for _, s := range b.sessions {
		if subtle.ConstantTimeCompare([]byte(s.token), []byte(token)) == 1 {
			s.used = b.options.Now()
			return s
		}
	}
	return nil
}

// expire ends the sessions that were not used for long. The lock is held.
func (b *BMC) expire() {
	oldest := b.options.Now().Add(-sessionTimeout)
	b.sessions = slices.DeleteFunc(b.sessions, func(s *session) bool { return s.used.Before(oldest) })
}

// login makes a session (DSP0266, section 13.3.4).
func (b *BMC) login(c *call) reply {
	user, okUser := c.body["UserName"].(string)
	password, okPassword := c.body["Password"].(string)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !okUser:
		return b.refuse(say("PropertyMissing", "UserName").about("UserName"))
	case !okPassword:
		return b.refuse(say("PropertyMissing", "Password").about("Password"))
	case !b.known(user, password):
		return b.refuse(say("ResourceAtUriUnauthorized", sessionsPath(), "the credentials are wrong"))
	}
	b.expire()
	if len(b.sessions) >= b.options.Sessions {
		if b.profile.full != nil {
			return b.refuse(*b.profile.full)
		}
		return b.refuse(say("SessionLimitExceeded"))
	}
	b.number++
	now := b.options.Now()
	s := &session{id: strconv.Itoa(b.number), token: randomHex(16), used: now, created: now}
	b.sessions = append(b.sessions, s)
	path := sessionsPath() + "/" + s.id
	body := b.represent(b.sessionResource(s), path)
	h := http.Header{}
	h.Set("X-Auth-Token", s.token)
	h.Set("Location", path)
	return reply{status: http.StatusCreated, header: h, body: body}
}

// sessionResource is one session (Session 1.6).
func (b *BMC) sessionResource(s *session) *resource {
	return &resource{
		get: func() object {
			return object{
				"@odata.type": "#Session.v1_6_0.Session", "Id": s.id, "Name": "Session " + s.id, "Description": "A user's session",
				"UserName": b.options.Username, "CreatedTime": stamp(s.created), "SessionType": "Redfish",
			}
		},
		remove: func() reply {
			b.sessions = slices.DeleteFunc(b.sessions, func(other *session) bool { return other == s })
			return reply{status: http.StatusNoContent}
		},
	}
}

// sessionService is SessionService 1.1 and its collection.
func (b *BMC) sessionService() {
	b.add(root+"/SessionService", &resource{get: func() object {
		return object{
			"@odata.type": "#SessionService.v1_1_9.SessionService", "Id": "SessionService", "Name": "Session Service", "Description": "Session Service",
			"Status": healthy(), "ServiceEnabled": true, "SessionTimeout": int(sessionTimeout.Seconds()),
			"Sessions": link(sessionsPath()),
		}
	}})
	collection := &resource{open: true, post: b.login, get: func() object {
		b.expire()
		var ids []string
		for _, s := range b.sessions {
			ids = append(ids, s.id)
		}
		return members("Session", sessionsPath(), ids)
	}}
	b.add(sessionsPath(), collection)
	b.add(sessionsPath()+"/Members", &resource{open: true, post: b.login})
}

// stamp is a time as Redfish writes it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
