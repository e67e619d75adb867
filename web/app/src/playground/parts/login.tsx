import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { ApiError, type Endpoint, logIn } from "../../api.ts";
import { type Credentials, reason } from "../playground.ts";
import { Sky } from "../../parts/sky.tsx";

interface Props {
  /** What ended the session before, if anything did. */
  notice: string;
  onLogin(credentials: Credentials, endpoints: Endpoint[]): void;
}

export function Login({ notice, onLogin }: Props) {
  const name = useSignal("");
  const token = useSignal("");
  const pushKey = useSignal("");
  const busy = useSignal(false);
  const error = useSignal(notice);
  // The operator may not have opened the log-in by name: then a token is given by hand.
  const byHand = useSignal(false);
  const input = useRef<HTMLInputElement>(null);

  useLayoutEffect(() => input.current?.focus(), [byHand.value]);

  async function submit(event: Event) {
    event.preventDefault();
    if (busy.value) return;
    error.value = "";
    if (byHand.value) {
      onLogin({ name: "", token: token.value.trim(), pushKey: pushKey.value.trim() }, []);
      return;
    }
    busy.value = true;
    try {
      const given = await logIn(name.value.trim());
      onLogin({ name: given.uid, token: given.token, pushKey: given.push_key ?? "" }, given.endpoints ?? []);
    } catch (failure) {
      if (failure instanceof ApiError && (failure.status === 403 || failure.status === 404)) byHand.value = true;
      else error.value = `${reason(failure)}.`;
    } finally {
      busy.value = false;
    }
  }

  return (
    <main class="login">
      <Sky />
      <form class="login-card" onSubmit={submit}>
        <h1>Halley</h1>
        <p class="lead">Rooms and pushes, live. Open this page in two windows and talk to yourself.</p>
        {byHand.value ? (
          <>
            <p class="hint">
              This server doesn’t let people in by name. Make a token on its machine and paste it here:
              <code>halley token --uid ann --rooms 'chat://*'</code>
            </p>
            <label class="field">
              <span>Token</span>
              <textarea ref={input as never} rows={3} required spellcheck={false} autocomplete="off" value={token} onInput={(e) => (token.value = e.currentTarget.value)} />
            </label>
            <label class="field">
              <span>
                API key <small>to push with; optional</small>
              </span>
              <input type="password" autocomplete="off" spellcheck={false} value={pushKey} onInput={(e) => (pushKey.value = e.currentTarget.value)} />
            </label>
          </>
        ) : (
          <label class="field">
            <span>Your name</span>
            <input
              ref={input}
              name="name"
              required
              maxLength={64}
              pattern="[A-Za-z0-9._@:\-]+"
              title="Letters, digits and . _ @ : - without spaces"
              placeholder="ann"
              autocomplete="username"
              autocapitalize="none"
              spellcheck={false}
              value={name}
              onInput={(e) => (name.value = e.currentTarget.value)}
            />
          </label>
        )}
        <p class="form-error" role="alert">
          {error}
        </p>
        <button class="primary" type="submit" disabled={busy.value}>
          {busy.value ? "One moment…" : byHand.value ? "Connect" : "Come in"}
        </button>
        <button class="plain" type="button" onClick={() => (byHand.value = !byHand.value)}>
          {byHand.value ? "Log in by name instead" : "I have a token"}
        </button>
      </form>
    </main>
  );
}
