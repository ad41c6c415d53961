package bmcsim

import (
	"encoding/xml"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stmcginnis/gofish"
	schema "github.com/stmcginnis/gofish/schemas"
	"github.com/stretchr/testify/require"
)

// published are the schemas that another project has typed from what the DMTF
// publishes: a property that it does not know is not of the schema.
var published = map[string]any{
	"ServiceRoot": gofish.Service{}, "ComputerSystem": schema.ComputerSystem{}, "Manager": schema.Manager{}, "Chassis": schema.Chassis{},
	"EthernetInterface": schema.EthernetInterface{}, "Processor": schema.Processor{}, "Memory": schema.Memory{}, "Storage": schema.Storage{},
	"StorageController": schema.StorageController{}, "Drive": schema.Drive{}, "Bios": schema.Bios{}, "BootOption": schema.BootOption{},
	"SecureBoot": schema.SecureBoot{}, "SecureBootDatabase": schema.SecureBootDatabase{}, "Certificate": schema.Certificate{}, "Signature": schema.Signature{},
	"VirtualMedia": schema.VirtualMedia{}, "TaskService": schema.TaskService{}, "Task": schema.Task{}, "SessionService": schema.SessionService{},
	"Session": schema.Session{}, "ActionInfo": schema.ActionInfo{},
}

var typePattern = regexp.MustCompile(`^#([A-Za-z]+)\.(v\d+_\d+_\d+\.[A-Za-z]+|[A-Za-z]+Collection)$`)

// crawl reads everything that is linked from the service root, and more.
func crawl(s *bench) map[string]object {
	found := map[string]object{}
	todo := []string{root + "/"}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		key := strings.TrimSuffix(path, "/")
		if found[key] != nil || strings.Contains(path, "#") {
			continue
		}
		found[key] = s.get(path)
		todo = append(todo, linked(found[key])...)
	}
	return found
}

func linked(v any) []string {
	var list []string
	switch v := v.(type) {
	case object:
		for name, inner := range v {
			text, isText := inner.(string)
			if isText && (name == "@odata.id" || name == "@Redfish.ActionInfo") {
				list = append(list, text)
			}
			list = append(list, linked(inner)...)
		}
	case []any:
		for _, inner := range v {
			list = append(list, linked(inner)...)
		}
	}
	return list
}

func TestEverythingThatIsLinkedIsThereAndSaysWhatItIs(t *testing.T) {
	for _, p := range Profiles() {
		t.Run(p.Name, func(t *testing.T) {
			s := newBench(t, p.Name)
			found := crawl(s)
			require.Greater(t, len(found), 35)
			for path, body := range found {
				require.Equal(t, path, strings.TrimSuffix(body["@odata.id"].(string), "/"))
				match := typePattern.FindStringSubmatch(body["@odata.type"].(string))
				require.NotNil(t, match, body["@odata.type"])
				require.NotEmpty(t, body["Name"], path)
				require.NotEmpty(t, body["@odata.etag"], path)
				if list, ok := body["Members"].([]any); ok {
					require.EqualValues(t, len(list), body["Members@odata.count"], path)
					continue
				}
				require.NotEmpty(t, body["Id"], path)
				requireKnown(t, path, match[1], body)
			}
			// What is not linked is as little there as what is linked is missing.
			for path := range s.static {
				if strings.Contains(path, "/Actions/") || strings.HasSuffix(path, "/Members") || !strings.HasPrefix(path, root+"/") || strings.Contains(path, "$") || strings.HasSuffix(path, "/odata") {
					continue
				}
				require.Contains(t, found, path, "nothing links to it")
			}
		})
	}
}

// requireKnown checks that a schema has all the properties of a representation.
func requireKnown(t *testing.T, path, name string, body object) {
	t.Helper()
	typed, ok := published[name]
	require.True(t, ok, "%s: no such schema: %s", path, name)
	known := map[string]bool{"links": true, "actions": true, "status": true}
	fieldNames(reflect.TypeOf(typed), known)
	for property := range body {
		if strings.Contains(property, "@") {
			continue
		}
		require.True(t, known[strings.ToLower(property)], "%s: %s has no property %s", path, name, property)
	}
}

func fieldNames(t reflect.Type, names map[string]bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			fieldNames(f.Type, names)
			continue
		}
		names[strings.ToLower(f.Name)] = true
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "" {
			names[strings.ToLower(tag)] = true
		}
	}
}

func TestWhatIsPublicIsReadableByAnyoneAndNothingElse(t *testing.T) {
	s := newBench(t, "generic")
	for _, path := range []string{"/redfish", "/redfish/", root, root + "/", root + "/odata", root + "/$metadata"} {
		require.Equal(t, http.StatusOK, s.ask(http.MethodGet, path, "", "Authorization", "").Code, path)
	}
	require.Equal(t, "/redfish/v1/", s.get("/redfish")["v1"])
	for path := range crawl(s) {
		a := s.ask(http.MethodGet, path, "", "Authorization", "")
		if path == root {
			continue
		}
		require.Equal(t, http.StatusUnauthorized, a.Code, path)
		require.Contains(t, a.Header().Get("WWW-Authenticate"), "Basic", path)
		require.NotContains(t, a.Body.String(), testUUID)
	}
	// Who is nobody does not learn what is there.
	require.Equal(t, http.StatusUnauthorized, s.ask(http.MethodGet, root+"/Nothing", "", "Authorization", "").Code)
	require.Equal(t, http.StatusNotFound, s.ask(http.MethodGet, root+"/Nothing", "").Code)
}

func TestTheMetadataDocumentIsXMLAndNamesEverySchemaThatIsServed(t *testing.T) {
	s := newBench(t, "generic")
	text := s.ask(http.MethodGet, root+"/$metadata", "").Body.String()
	var document struct {
		References []struct {
			URI string `xml:"Uri,attr"`
		} `xml:"Reference"`
	}
	require.NoError(t, xml.Unmarshal([]byte(text), &document))
	require.Len(t, document.References, len(schemas))
	for _, body := range crawl(s) {
		name, _, _ := strings.Cut(strings.TrimPrefix(body["@odata.type"].(string), "#"), ".")
		require.Contains(t, text, `Namespace="`+name+`"`)
	}
}
