import { expect, it } from "vitest";
import { Keeper } from "../src/chat/keeper.ts";
import { MemoryStorage } from "../src/chat/storage.ts";

it.each(Array.from({ length: 20 }, (_, turns) => turns))("keeps what comes while a save ends (%i turns after it began)", async (turns) => {
  const storage = new MemoryStorage();
  const keeper = new Keeper(storage, (error) => {
    throw error;
  });
  keeper.uid("ann");
  for (let i = 0; i < turns; i++) await Promise.resolve();
  keeper.userChange(7);
  await keeper.flush();
  expect(await storage.load()).toMatchObject({ uid: "ann", userChange: 7 });
});
