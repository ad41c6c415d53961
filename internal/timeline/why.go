package timeline

import (
	"strings"
	"unicode"
	"unicode/utf8"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// What helps where several things can be behind a symptom, the likeliest first.
const (
	helpNoOperator = "see whether an operator runs and may read this namespace: bootctl doctor"
	helpUndriven   = "run the operator with --baremetalhost-mode=drive and this namespace among --baremetalhost-namespaces, or set spec.bmc.address and spec.bmc.credentialsName"
	helpPower      = "ask the BMC what it does: bootctl bmc probe, or its web interface"
	helpNoFetch    = "look at the machine's console: is HTTP or PXE boot on in its firmware, has the NIC a link, does a DHCP server answer (bootctl doctor --interface)?"
	helpOffered    = "firmware that was offered a boot and does not fetch it has taken another server's offer, cannot reach the boot URL, or does not trust its certificate: bootctl doctor --url"
	helpCut        = "firmware gives up after 5 idle seconds: look for a firewall, a duplex or MTU mismatch or packet loss on the way; the machine has to boot again"
	helpForeign    = "take the boot options (66, 67, next-server) for this machine out of the other DHCP server, or have it name this operator's URL: bootctl dhcp"
	helpAmbiguous  = "the machine's own address has to reach the operator: externalTrafficPolicy: Local, hostNetwork or PROXY protocol: bootctl doctor --url"
)

// helps are for reasons, and conditions, whose message does not say what to do.
var helps = map[string]string{
	v1alpha1.ConditionForeignBootOffer:       helpForeign,
	v1alpha1.ConditionClientAddressAmbiguous: helpAmbiguous,
	v1alpha1.ReasonImageNotFound:             "check the image's name and tag: bootctl image inspect",
	v1alpha1.ReasonUnauthorized:              "give the registry's credentials by spec.pullSecretRef",
	v1alpha1.ReasonRegistryError:             "check that the registry can be reached from the operator's Pods",
	v1alpha1.ReasonStoreFull:                 "enlarge the cache volume, or its budget (--artifact-max-bytes)",
	v1alpha1.ReasonSecretNotFound:            "create the Secret, or take its name out of the config",
	v1alpha1.ReasonNoArtifact:                "see what is in the image: bootctl image inspect",
	v1alpha1.ReasonNoPlatform:                "see which architectures the image has: bootctl image inspect",
	v1alpha1.ReasonVerificationFailed:        "see who signed the image: bootctl image verify",
}

// hostHelps are for the reasons of a host's condition Ready.
var hostHelps = map[string]string{
	"CredentialsRefused":       "correct the Secret of spec.bmc.credentialsName: the BMC refused the credentials, and is not asked again with them",
	"NoCredentials":            "create the Secret of spec.bmc.credentialsName, with username and password",
	"BMCCertificateNotTrusted": "give the operator the authority of the BMC's certificate (--bmc-ca-file)",
	"BMCUnreachable":           "check spec.bmc.address, and that the operator's Pods reach it: bootctl doctor",
	"BMCRefused":               "see what this BMC can be told: bootctl bmc probe",
	"BMCUnusable":              "see what this BMC can be told: bootctl bmc probe",
	"IdentityNotObservable":    "nothing was switched off; list the machine's addresses in the annotation " + v1alpha1.HostAddressesAnnotation + ", or let the operator offer boots itself (--netboot-interface)",
	"AnotherMachine":           "see which machine this BMC is of; to accept it, remove the annotation " + v1alpha1.HostSystemUUIDAnnotation,
	"UserDataNotFetched":       "see what the operating system says on its console",
}

// hostHelp says what would help a host with an error.
func hostHelp(h *metal3.BareMetalHost) string {
	c := meta.FindStatusCondition(h.Status.Conditions, metal3.ReadyCondition)
	if c == nil {
		return ""
	}
	if help, known := hostHelps[c.Reason]; known {
		return help
	}
	return helps[c.Reason]
}

func helpRetry(name string) string {
	return "when that is mended: bootctl boot retry " + name
}

func helpNoDocument(name string) string {
	return "see what the OS says on its console: it has no driver or no lease for its NIC, has another address than firmware had, or its image reads no Ignition; then: bootctl boot retry " + name
}

// maxMessage bounds what is repeated of an object's text, in bytes.
const maxMessage = 1024

// clip bounds text and makes one line of it. Characters that move a terminal's cursor
// do not come through.
func clip(s string) string {
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// sentence makes a sentence of a phrase: a capital letter before it and a full stop
// behind it. A command or a name keeps its spelling.
func sentence(s string) string {
	s = clip(s)
	if s == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(s)
	word, _, _ := strings.Cut(s, " ")
	if !strings.HasPrefix(s, "bootctl ") && !strings.ContainsAny(word, ".:/=@") {
		s = string(unicode.ToUpper(first)) + s[size:]
	}
	if !strings.ContainsAny(s[len(s)-1:], ".?!") && !strings.HasSuffix(s, "…") {
		s += "."
	}
	return s
}

// after returns text behind a colon, or nothing.
func after(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
