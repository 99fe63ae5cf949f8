import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import { testStore } from './store-suite.ts';

testStore('memory', async () => {
  const store = createMemoryStore();
  return { store, again: async () => store };
});
