// Keys and tokens for a NATS server and one user of it, as JSON in one line:
// nkey and seed of the user; operator, account, account_jwt for the server; creds, the text of the user's file.
import { encodeAccount, encodeOperator, encodeUser, fmtCreds } from '@nats-io/jwt';
import { createAccount, createOperator, createUser } from '@nats-io/nkeys';
import { say } from './common.js';

const text = (bytes) => new TextDecoder().decode(bytes);
const operator = createOperator(), account = createAccount(), user = createUser();
const limits = { conn: -1, data: -1, exports: -1, imports: -1, leaf: -1, payload: -1, subs: -1, wildcards: true };

say({
  nkey: user.getPublicKey(),
  seed: text(user.getSeed()),
  operator: await encodeOperator('spec', operator),
  account: account.getPublicKey(),
  account_jwt: await encodeAccount('spec', account, { limits }, { signer: operator }),
  creds: text(fmtCreds(await encodeUser('spec', user, account), user)),
});
