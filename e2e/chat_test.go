package e2e

import "testing"

// TestChat has conversations on a cluster of two of each role.
func TestChat(t *testing.T) {
	c := StartCluster(t, Two, Conversations(), Setting("HALLEY_JOB_CHAT_LARGE", "8"))
	t.Run("large group", func(t *testing.T) { testLargeGroup(t, c) })
}
