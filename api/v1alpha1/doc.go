// Package v1alpha1 holds the kinds of the API group boot.ironcore.dev, their
// conditions and reasons. It is a superset of the API that ironcore's
// boot-operator serves.
//
// +kubebuilder:object:generate=true
// +groupName=boot.ironcore.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the group and version of these kinds.
	GroupVersion = schema.GroupVersion{Group: "boot.ironcore.dev", Version: "v1alpha1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds these kinds to a scheme.
	AddToScheme = schemeBuilder.AddToScheme
)

func addKnownTypes(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &HTTPBootConfig{}, &HTTPBootConfigList{}, &IPXEBootConfig{}, &IPXEBootConfigList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
