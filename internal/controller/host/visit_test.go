package host

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// The queue takes a negative time for none, and what a BMC is asked takes time.
func TestAWaitThatIsOverAlreadyStillComesBack(t *testing.T) {
	v := &visit{}
	require.NoError(t, v.wait(-time.Second, "waits"))
	require.Positive(t, v.after)
}

func TestMessagesOfAStatusAreBoundedAndOnOneLine(t *testing.T) {
	require.Equal(t, "a b", clip(" a\n\tb "))
	long := clip(string(make([]byte, 5000)) + "ä")
	require.LessOrEqual(t, len(long), maxMessage)
}

func TestTheProgressOfADeliveryIsNoReasonToVisitAHost(t *testing.T) {
	told := func(version string, sent int64, message string, change func(*v1alpha1.HTTPBootConfig)) *v1alpha1.HTTPBootConfig {
		c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
		c.Status.Boot = &v1alpha1.BootStatus{Stages: []v1alpha1.BootStage{{Name: "UKI", Attempt: 1, Sent: sent, Size: 100}}}
		c.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionUKIFetched, Status: isFalse, Reason: v1alpha1.ReasonUKIDeliveryIncomplete, Message: message}}
		if change != nil {
			change(c)
		}
		return c
	}
	before := told("1", 10, "10 %", nil)
	for name, tt := range map[string]struct {
		after *v1alpha1.HTTPBootConfig
		news  bool
	}{
		"progress":       {told("2", 20, "20 %", nil), false},
		"the list again": {told("1", 10, "10 %", nil), true},
		"it was completed": {told("2", 100, "", func(c *v1alpha1.HTTPBootConfig) {
			c.Status.Boot.Stages[0].CompletedTime = &metav1.MicroTime{Time: time.Now()}
		}), true},
		"it was aborted":  {told("2", 20, "20 %", func(c *v1alpha1.HTTPBootConfig) { c.Status.Boot.Aborted = 1 }), true},
		"another attempt": {told("2", 20, "20 %", func(c *v1alpha1.HTTPBootConfig) { c.Status.Boot.Attempt = 2 }), true},
		"an annotation":   {told("2", 10, "10 %", func(c *v1alpha1.HTTPBootConfig) { annotate(c, "a", "b") }), true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tt.news, news.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: tt.after}))
			require.EqualValues(t, 10, before.Status.Boot.Stages[0].Sent, "what the cache holds is left alone")
		})
	}
	require.True(t, news.Create(event.CreateEvent{Object: before}))
	require.True(t, news.Delete(event.DeleteEvent{Object: before}))
}
