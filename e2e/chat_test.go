package e2e

import "testing"

// TestChat has conversations on a cluster of two of each role.
func TestChat(t *testing.T) {
	hooks := newHookReceiver(t, hookSecret)
	c := StartCluster(t, Two, Conversations(), Setting("HALLEY_JOB_CHAT_LARGE", "8"), Setting("HALLEY_JOB_CHAT_ROOM_AFTER", "1s"),
		Setting("HALLEY_JOB_HOOK_ENDPOINTS", "phones "+hooks.URL+" "+hookSecret+" message.offline+user.online+user.offline"),
		Setting("HALLEY_ROUTER_PRESENCE_HOOKS", "true"),
		// Whoever waits for an outcome and doesn't get it in time is told 202, which is right, and no refusal.
		Setting("HALLEY_LOGIC_CHAT_OUTCOME_WAIT", "5s"))
	t.Run("at once", func(t *testing.T) {
		for name, f := range map[string]func(*testing.T, *Cluster){
			"codes": testChatCodes, "tenants": testChatTenants, "inbox": testInbox,
			"webhooks": func(t *testing.T, c *Cluster) { testWebhooks(t, c, hooks) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, c)
			})
		}
	})
	t.Run("large group", func(t *testing.T) { testLargeGroup(t, c) })
	t.Run("database away", func(t *testing.T) { testDatabaseAway(t, c) })
	t.Run("group of 320", func(t *testing.T) { testGroupOf320(t, c) })
}
