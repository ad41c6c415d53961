package translate

import (
	"fmt"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
)

// Counts says whether a configuration is the one that a Server boots, and if
// not, why not and what would make it so. all are the ServerBootConfigurations
// that name the Server.
//
// What the Server names wins: in the state Maintenance
// spec.maintenanceBootConfigurationRef, where it is set, otherwise
// spec.bootConfigurationRef. A Server that names none boots the only
// configuration that there is for it.
func Counts(c *metalv1alpha1.ServerBootConfiguration, s *metalv1alpha1.Server, all []metalv1alpha1.ServerBootConfiguration) (bool, string) {
	ref, field := s.Spec.BootConfigurationRef, "spec.bootConfigurationRef"
	if m := s.Spec.MaintenanceBootConfigurationRef; m != nil && s.Status.State == metalv1alpha1.ServerStateMaintenance {
		ref, field = m, "spec.maintenanceBootConfigurationRef"
	}
	if ref != nil {
		if names(ref, c) {
			return true, ""
		}
		return false, fmt.Sprintf("Server %s boots %s/%s now (%s); this configuration counts once the Server names it", s.Name, ref.Namespace, ref.Name, field)
	}
	if names(s.Spec.MaintenanceBootConfigurationRef, c) {
		return false, fmt.Sprintf("Server %s boots this in the state Maintenance only (spec.maintenanceBootConfigurationRef)", s.Name)
	}
	n := 0
	for i := range all {
		if all[i].DeletionTimestamp == nil && !names(s.Spec.MaintenanceBootConfigurationRef, &all[i]) {
			n++
		}
	}
	if n > 1 {
		return false, fmt.Sprintf("%d ServerBootConfigurations are for Server %s and it names none of them: set its spec.bootConfigurationRef", n, s.Name)
	}
	return true, ""
}

func names(ref *metalv1alpha1.ObjectReference, c *metalv1alpha1.ServerBootConfiguration) bool {
	return ref != nil && ref.Namespace == c.Namespace && ref.Name == c.Name
}
