import { useSignal } from "@preact/signals";
import { roomLabel, roomName } from "../../format.ts";
import { type Playground, reason } from "../playground.ts";
import { Bell, Hash, Plus } from "../../parts/icons.tsx";

/** The list on the left: the rooms one is in, what was pushed, and a way into more rooms. */
export function Rooms({ playground, onShow }: { playground: Playground; onShow(): void }) {
  const wanted = useSignal("");
  const error = useSignal("");
  const current = playground.current.value;

  const show = (name: string) => {
    playground.show(name);
    onShow();
  };

  async function join(event: Event) {
    event.preventDefault();
    if (!wanted.value.trim()) return;
    error.value = "";
    try {
      await playground.join(roomName(wanted.value));
      wanted.value = "";
      onShow();
    } catch (failure) {
      error.value = `${reason(failure)}.`;
    }
  }

  return (
    <nav class="rooms" aria-label="Rooms">
      <h2>Rooms</h2>
      <ul>
        {[...playground.rooms.value.values()].map((room) => (
          <li key={room.name}>
            <button type="button" class="row" aria-current={room.name === current ? "true" : undefined} onClick={() => show(room.name)}>
              <Hash />
              <span class="grow">{roomLabel(room.name)}</span>
              <Unread n={room.unread} />
            </button>
          </li>
        ))}
      </ul>
      <form class="join" onSubmit={join}>
        <input
          aria-label="Name of a room to join"
          placeholder="Join a room"
          autocomplete="off"
          autocapitalize="none"
          spellcheck={false}
          maxLength={248}
          value={wanted}
          onInput={(e) => (wanted.value = e.currentTarget.value)}
        />
        <button class="icon-button" type="submit" aria-label="Join">
          <Plus />
        </button>
      </form>
      <p class="form-error" role="alert">
        {error}
      </p>
      <h2>For you</h2>
      <ul>
        <li>
          <button type="button" class="row" aria-current={current === "" ? "true" : undefined} onClick={() => show("")}>
            <Bell />
            <span class="grow">Pushes</span>
            <Unread n={playground.unreadPushes.value} />
          </button>
        </li>
      </ul>
    </nav>
  );
}

function Unread({ n }: { n: number }) {
  if (n === 0) return null;
  return (
    <span class="unread">
      {n > 99 ? "99+" : n}
      <span class="aside"> unread</span>
    </span>
  );
}
