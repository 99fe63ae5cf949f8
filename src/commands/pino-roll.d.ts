/** pino-roll brings no types; these are the options used here. */
declare module 'pino-roll' {
  export default function roll(options: {
    readonly file: string;
    readonly extension: string;
    readonly size: string;
    readonly limit: { readonly count: number };
    readonly mkdir: boolean;
    readonly symlink: boolean;
    readonly sync: boolean;
  }): Promise<{ write(line: string): void }>;
}
