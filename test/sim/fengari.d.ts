/** As much of fengari's Lua API as the simulated Redis uses. */
declare module 'fengari' {
  type State = object;
  type LuaText = Uint8Array;
  const fengari: {
    readonly to_luastring: (text: string) => LuaText;
    readonly to_jsstring: (text: LuaText) => string;
    readonly lauxlib: {
      luaL_newstate(): State;
      luaL_loadstring(L: State, text: LuaText): number;
    };
    readonly lualib: { luaL_openlibs(L: State): void };
    readonly lua: {
      readonly LUA_OK: number;
      readonly LUA_TNIL: number;
      readonly LUA_TBOOLEAN: number;
      readonly LUA_TNUMBER: number;
      readonly LUA_TSTRING: number;
      readonly LUA_TTABLE: number;
      lua_gettop(L: State): number;
      lua_type(L: State, at: number): number;
      lua_absindex(L: State, at: number): number;
      lua_createtable(L: State, items: number, fields: number): void;
      lua_pushcfunction(L: State, f: (L: State) => number): void;
      lua_pushboolean(L: State, value: boolean): void;
      lua_pushnumber(L: State, value: number): void;
      lua_pushstring(L: State, text: LuaText): void;
      lua_setfield(L: State, at: number, name: LuaText): void;
      lua_setglobal(L: State, name: LuaText): void;
      lua_getglobal(L: State, name: LuaText): void;
      lua_settop(L: State, n: number): void;
      lua_rawseti(L: State, at: number, n: number): void;
      lua_rawgeti(L: State, at: number, n: number): void;
      lua_pcall(L: State, given: number, results: number, handler: number): number;
      lua_pop(L: State, n: number): void;
      lua_tonumber(L: State, at: number): number;
      lua_toboolean(L: State, at: number): boolean;
      lua_tostring(L: State, at: number): LuaText | null;
    };
  };
  export default fengari;
}
