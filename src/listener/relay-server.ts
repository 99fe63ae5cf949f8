/**
 * The server of a listener. In: connections. Out: their sessions. What happens between being accepted and a
 * session is in accept.ts.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { formatReplyText } from '../protocol/reply.ts';
import { type Accepted, acceptSocket, readProxyHeader } from './accept.ts';
import { type ConnectionHooks, RelayConnection } from './smtp-connection.ts';
import { SeamServer, type ServerCertificate } from './smtp-server-seam.ts';
import { TurnShare } from './turn-share.ts';

export class RelayServer extends SeamServer<Accepted> {
  readonly hooks: ConnectionHooks;
  /** Of all its sessions together. */
  readonly share = new TurnShare();
  /** A connection whose session begins only now was accepted before: it is told, too. */
  isDraining = false;

  constructor(hooks: ConnectionHooks, certificate: ServerCertificate | undefined) {
    super({ ...hooks.options, certificate });
    this.hooks = hooks;
    this.on('error', (error) => hooks.socketError(error));
  }

  override connect(socket: Socket | TLSSocket, accepted: Accepted): void {
    // Gone between being accepted and now: there will be no event to count it out by.
    if (socket.destroyed) accepted.admission.leave();
    else super.connect(socket, accepted);
  }

  /** Lets each session finish the transaction it is in; one that is still to begin hears 421 for a greeting. */
  drain(): void {
    this.isDraining = true;
    for (const connection of this.relayConnections()) connection.drain();
  }

  /** Every open connection. */
  relayConnections(): RelayConnection[] {
    return [...this.connections].filter((c) => c instanceof RelayConnection);
  }

  protected override accept(socket: Socket, isHandshake: boolean): (() => void) | false {
    return acceptSocket(socket, isHandshake, this.hooks, this.pendingSockets);
  }

  protected override readHeader(
    socket: Socket,
    callback: (error: Error | null, accepted?: Accepted) => void,
  ): void {
    readProxyHeader(socket, callback);
  }

  protected override openSession(socket: Socket | TLSSocket, accepted: Accepted): RelayConnection {
    return new RelayConnection(this, socket, accepted);
  }

  protected override async authenticate(user: string, password: unknown, session: object) {
    const connection = this.relayConnections().find((c) => c.session === session);
    if (connection === undefined || typeof password !== 'string')
      return { code: 454, text: '4.7.0 Temporary authentication failure' };
    const refusal = await connection.authenticate(user, password);
    return refusal && { code: refusal.code, text: formatReplyText(refusal) };
  }
}
