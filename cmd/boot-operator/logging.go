package main

import "github.com/go-logr/logr"

// mostVerbose is the last level of logs at which the Kubernetes client does not
// log the bodies of what it reads and writes: there are Secrets among them.
const mostVerbose = 7

// discreet returns a logger without the levels above mostVerbose, whatever
// --zap-log-level says.
func discreet(l logr.Logger) logr.Logger {
	sink := l.GetSink()
	if c, ok := sink.(logr.CallDepthLogSink); ok {
		sink = c.WithCallDepth(1) // discreetSink is between
	}
	return l.WithSink(discreetSink{sink})
}

type discreetSink struct{ logr.LogSink }

func (s discreetSink) Enabled(level int) bool {
	return level <= mostVerbose && s.LogSink.Enabled(level)
}

func (s discreetSink) WithValues(keysAndValues ...any) logr.LogSink {
	return discreetSink{s.LogSink.WithValues(keysAndValues...)}
}

func (s discreetSink) WithName(name string) logr.LogSink {
	return discreetSink{s.LogSink.WithName(name)}
}

func (s discreetSink) WithCallDepth(depth int) logr.LogSink {
	if c, ok := s.LogSink.(logr.CallDepthLogSink); ok {
		return discreetSink{c.WithCallDepth(depth)}
	}
	return s
}
