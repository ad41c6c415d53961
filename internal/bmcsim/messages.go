package bmcsim

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// message is one entry of @Message.ExtendedInfo (DSP0266, section 8.6): what a
// request met, from a message registry.
type message struct {
	status int // the HTTP status that goes with it
	// id is registry, version and key. One without a dot is of the Base registry,
	// in the version that the profile speaks.
	id   string
	text string
	args []string
	// property is a JSON pointer into the request; empty: all of it.
	property string
	severity string // OK, Warning or Critical; empty: Critical
	advice   string
	// partial says that the other properties of a PATCH may still be taken
	// (DSP0266, section 7.7).
	partial bool
}

// base is one message of the Base registry (DSP8011).
type base struct {
	status         int
	text, severity string
	advice         string
	partial        bool
}

// baseMessages are those that this service says. %1 and so on are arguments.
var baseMessages = map[string]base{
	"Success":                          {200, "The request completed successfully.", "OK", "None.", false},
	"Created":                          {201, "The resource was created successfully.", "OK", "None.", false},
	"MalformedJSON":                    {400, "The request body submitted was malformed JSON and could not be parsed by the receiving service.", "", "Ensure that the request body is valid JSON and resubmit the request.", false},
	"UnrecognizedRequestBody":          {400, "The service detected a malformed request body that it was unable to interpret.", "Warning", "Correct the request body and resubmit the request if it failed.", false},
	"EmptyJSON":                        {400, "The request body submitted contained an empty JSON object and the service is unable to process it.", "Warning", "Add properties in the JSON object and resubmit the request.", false},
	"NoOperation":                      {400, "The request body submitted contain no data to act upon and no changes to the resource took place.", "Warning", "Add properties in the JSON object and resubmit the request.", false},
	"GeneralError":                     {400, "A general error has occurred. See Resolution for information on how to resolve the error.", "", "None.", false},
	"PropertyUnknown":                  {400, "The property %1 is not in the list of valid properties for the resource.", "Warning", "Remove the unknown property from the request body and resubmit the request if the operation failed.", true},
	"PropertyNotWritable":              {400, "The property %1 is a read-only property and cannot be assigned a value.", "Warning", "Remove the property from the request body and resubmit the request if the operation failed.", true},
	"PropertyValueNotInList":           {400, "The value '%1' for the property %2 is not in the list of acceptable values.", "Warning", "Choose a value from the enumeration list that the implementation can support and resubmit the request if the operation failed.", false},
	"PropertyValueTypeError":           {400, "The value '%1' for the property %2 is not a type that the property can accept.", "Warning", "Correct the value for the property in the request body and resubmit the request if the operation failed.", false},
	"PropertyValueFormatError":         {400, "The value '%1' for the property %2 is not a format that the property can accept.", "Warning", "Correct the value for the property in the request body and resubmit the request if the operation failed.", false},
	"PropertyValueConflict":            {400, "The property '%1' could not be written because its value would conflict with the value of the '%2' property.", "Warning", "No resolution is required.", false},
	"PropertyMissing":                  {400, "The property %1 is a required property and must be included in the request.", "Warning", "Ensure that the property is in the request body and has a valid value and resubmit the request if the operation failed.", false},
	"ActionParameterMissing":           {400, "The action %1 requires the parameter %2 to be present in the request body.", "", "Supply the action with the required parameter in the request body when the request is resubmitted.", false},
	"ActionParameterUnknown":           {400, "The action %1 was submitted with the invalid parameter %2.", "Warning", "Correct the invalid parameter and resubmit the request if the operation failed.", false},
	"ActionParameterValueTypeError":    {400, "The value '%1' for the parameter %2 in the action %3 is not a type that the parameter can accept.", "Warning", "Correct the value for the parameter in the request body and resubmit the request if the operation failed.", false},
	"ActionParameterValueNotInList":    {400, "The value '%1' for the parameter %2 in the action %3 is not in the list of acceptable values.", "Warning", "Choose a value from the enumeration list that the implementation can support and resubmit the request if the operation failed.", false},
	"NoValidSession":                   {401, "There is no valid session established with the implementation.", "", "Establish a session before attempting any operations.", false},
	"ResourceAtUriUnauthorized":        {401, "While accessing the resource at '%1', the service received an authorization error '%2'.", "", "Ensure that the appropriate access is provided for the service in order for it to access the URI.", false},
	"ResourceMissingAtURI":             {404, "The resource at the URI '%1' was not found.", "", "Place a valid resource at the URI or correct the URI and resubmit the request.", false},
	"OperationNotAllowed":              {405, "The HTTP method is not allowed on this resource.", "", "None.", false},
	"HeaderInvalid":                    {400, "Header '%1' is invalid.", "", "Resubmit the request with a valid request header.", false},
	"PreconditionFailed":               {412, "The ETag supplied did not match the current ETag of the resource.", "", "Try the operation again using the appropriate ETag.", false},
	"PreconditionRequired":             {428, "A precondition header or annotation is required to change this resource.", "", "Try the operation again using an If-Match or If-None-Match header and appropriate ETag.", false},
	"PayloadTooLarge":                  {413, "The supplied payload exceeds the maximum size supported by the service.", "", "Reduce the size of the payload and resubmit the request.", false},
	"QueryNotSupported":                {501, "Querying is not supported by the implementation.", "Warning", "Remove the query parameters and resubmit the request if the operation failed.", false},
	"SessionLimitExceeded":             {503, "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the implementation.", "", "Reduce the number of other sessions before trying to establish the session or increase the limit of simultaneous sessions, if supported.", false},
	"ResourceInStandby":                {503, "The request could not be performed because the resource is in standby.", "", "Ensure that the resource is in the correct power state and resubmit the request.", false},
	"ServiceTemporarilyUnavailable":    {503, "The service is temporarily unavailable. Retry in %1 seconds.", "", "Wait for the indicated retry duration and retry the operation.", false},
	"CreateLimitReachedForResource":    {400, "The create operation failed because the resource has reached the limit of possible resources.", "", "Either delete resources and resubmit the request if the operation failed or do not resubmit the request.", false},
	"ResourceAlreadyExists":            {409, "The requested resource of type %1 with the property %2 with the value '%3' already exists.", "", "Do not repeat the create operation as the resource has already been created.", false},
	"OperationFailed":                  {409, "An error occurred internal to the service as part of the overall request. Partial results may have been returned.", "Warning", "Resubmit the request. If the problem persists, consider resetting the service or provider.", false},
	"InternalError":                    {500, "The request failed due to an internal service error. The service is still operational.", "", "Resubmit the request. If the problem persists, consider resetting the service.", false},
	"ResourceExhaustion":               {503, "The resource '%1' was unable to satisfy the request due to unavailability of resources.", "", "Ensure that the resources are available and resubmit the request.", false},
	"SettingsWillBeAppliedOnNextReset": {200, "The settings will be applied on the next reset.", "OK", "None.", false},
}

// say is a message of the Base registry with its arguments.
func say(key string, args ...string) message {
	b := baseMessages[key]
	text := b.text
	for i, arg := range args {
		text = strings.ReplaceAll(text, "%"+strconv.Itoa(i+1), bounded(arg, 200))
	}
	return message{status: b.status, id: key, text: text, args: args, severity: b.severity, advice: b.advice, partial: b.partial}
}

// about names the property of the request that a message is about.
func (m message) about(pointer string) message {
	m.property = "#/" + pointer
	return m
}

// bounded cuts what a client sent before it is sent back.
func bounded(text string, n int) string {
	if len(text) > n {
		return text[:n] + "…"
	}
	return text
}

// entry is the message as JSON (Message 1.1.2).
func (b *BMC) entry(m message) object {
	id := m.id
	if !strings.Contains(id, ".") {
		id = b.profile.registry() + "." + id
	}
	severity := m.severity
	if severity == "" {
		severity = "Critical"
	}
	args := make([]string, 0, len(m.args))
	for _, arg := range m.args {
		args = append(args, bounded(arg, 200))
	}
	o := object{
		"@odata.type":     "#Message.v1_1_2.Message",
		"MessageId":       id,
		"Message":         m.text,
		"MessageArgs":     args,
		"Severity":        severity,
		"MessageSeverity": severity,
		"Resolution":      m.advice,
	}
	if m.property != "" {
		o["RelatedProperties"] = []string{m.property}
	}
	return o
}

// refuse is the answer to a request that failed. The first message decides the
// status.
func (b *BMC) refuse(messages ...message) reply {
	info := make([]object, 0, len(messages))
	for _, m := range messages {
		info = append(info, b.entry(m))
	}
	code, text := info[0]["MessageId"], info[0]["Message"]
	if len(info) > 1 {
		code = b.profile.registry() + ".GeneralError"
		text = "A general error has occurred. See ExtendedInfo for more information on how to resolve the error."
	}
	r := reply{status: messages[0].status, header: http.Header{}, body: object{"error": object{
		"code": code, "message": text, "@Message.ExtendedInfo": info,
	}}}
	switch r.status {
	case http.StatusUnauthorized:
		r.header.Set("WWW-Authenticate", `Basic realm="Redfish"`)
	case http.StatusServiceUnavailable:
		r.header.Set("Retry-After", strconv.Itoa(b.profile.retryAfter()))
	}
	return r
}

// fail is the answer when the machine did not do what it was told.
func (b *BMC) fail(err error) reply {
	m := say("InternalError")
	m.text = bounded(fmt.Sprintf("%s The machine says: %v", m.text, err), 1000)
	return b.refuse(m)
}
