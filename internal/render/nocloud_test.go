package render

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func metaData(t *testing.T, p *boot.Plan, userData string) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, yaml.Unmarshal(MetaData(p, boot.CloudInit{UserData: []byte(userData)}), &m))
	require.Len(t, m, 2)
	return m
}

func TestInstanceIDIsOfTheProvisioningNotTheBoot(t *testing.T) {
	p := plan()
	first := metaData(t, p, "#cloud-config\n")
	require.Equal(t, map[string]any{"instance-id": "5a0c7cd6-23f8-4d8a-9d4f-2f6b2d9e5a11-88c95955b024", "local-hostname": "node-1"}, first)
	p.Attempt.Number = 7
	require.Equal(t, first, metaData(t, p, "#cloud-config\n"), "the next boot")
	require.NotEqual(t, first, metaData(t, p, "#cloud-config\nx: y\n"), "other user data")
	p.Object.UID = "another"
	require.NotEqual(t, first, metaData(t, p, "#cloud-config\n"), "another object")
}

func TestMetaDataIsAddedAndNeverTakesTheInstanceID(t *testing.T) {
	p := plan()
	id := metaData(t, p, "#cloud-config\n")["instance-id"]
	odd := "a: \"b\"\n\u0085\u2028\x7fü😀 #"
	text := MetaData(p, boot.CloudInit{UserData: []byte("#cloud-config\n"), MetaData: map[string]string{
		"instance-id": "mine", "instance_id": "mine", "local_hostname": "Node-7.example.com", "name": "other",
		"providerid": "metal3://a/b/c", "zone/rack": "0123", "yes": "no", odd: odd,
	}})
	var got map[string]any
	require.NoError(t, yaml.Unmarshal(text, &got))
	require.Equal(t, map[string]any{
		"instance-id": id, "local-hostname": "node-7.example.com", "local_hostname": "Node-7.example.com", "name": "other",
		"providerid": "metal3://a/b/c", "zone/rack": "0123", "yes": "no", odd: odd,
	}, got)
	require.Equal(t, text, MetaData(p, boot.CloudInit{UserData: []byte("#cloud-config\n"), MetaData: map[string]string{
		odd: odd, "yes": "no", "zone/rack": "0123", "providerid": "metal3://a/b/c", "name": "other", "local_hostname": "Node-7.example.com",
	}}), "the same in any order")
}

func TestTheMachinesNameIsTheFirstThatItsMetaDataHas(t *testing.T) {
	for _, c := range []struct {
		meta map[string]string
		want string
	}{
		{nil, "node-1"},
		{map[string]string{"name": " "}, "node-1"},
		{map[string]string{"name": "a"}, "a"},
		{map[string]string{"name": "a", "local_hostname": "b"}, "b"},
		{map[string]string{"name": "a", "local_hostname": "b", "local-hostname": "c"}, "c"},
		{map[string]string{"local-hostname": "x\ninstance-id: y"}, "x-instance-id--y"},
	} {
		var got map[string]any
		require.NoError(t, yaml.Unmarshal(MetaData(plan(), boot.CloudInit{MetaData: c.meta}), &got))
		require.Equal(t, c.want, got["local-hostname"])
	}
}

func TestEveryNameBecomesAHostName(t *testing.T) {
	long := strings.Repeat("a", 80)
	for name, want := range map[string]string{
		"node-1": "node-1", "true": "true", "0123": "0123", "1e5": "1e5", "node.example.com": "node.example.com", "A_b": "a-b", "": "localhost", "...": "localhost",
		"-a-.-": "a", "x\"\ny: z": "x--y--z", long: long[:63], long[:62] + "-b": long[:62], "ü": "localhost",
	} {
		p := plan(func(p *boot.Plan) { p.Object.Name = name })
		require.Equal(t, want, metaData(t, p, "")["local-hostname"], "%q", name)
	}
	got := hostName(strings.Repeat("abcdefghi.", 60))
	require.LessOrEqual(t, len(got), 253)
	require.Greater(t, len(got), 240)
}
