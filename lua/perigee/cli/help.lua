--- perigee help [COMMAND].

local arguments = require("perigee.cli.arguments")

local USAGE = [[
usage: perigee COMMAND ...

  serve SCRIPT... [--listen URL]... [--watch] [--stamp] [--workers N|auto] [--admin ADDR] [--drain-timeout MS]
                  [--budget MS] [--load-budget MS] [--max-memory MIB] [--no-budget]
  run SCRIPT [ARG]... [--timeout MS] [--budget MS] [--max-memory MIB]
  send URL PATTERN [DATA] [--timeout MS] [--metadata K=V]... [--option K=V]...
  emit URL PATTERN [DATA] [--timeout MS] [--metadata K=V]... [--option K=V]...
  check SCRIPT... [--json] [--static] [--load-budget MS]
  test [PATH]...
  reload [--admin ADDR | --pid PID]
  status [--admin ADDR | --pid PID] [--json]
  version
  help [COMMAND]
]]

local COMMANDS = {
  serve = [[
usage: perigee serve SCRIPT... [--listen URL]... [--watch] [--stamp] [--workers N|auto]
                     [--admin ADDR] [--drain-timeout MS] [--budget MS]
                     [--load-budget MS] [--max-memory MIB] [--no-budget]

Runs routing scripts, all on one set of listeners: those they ask for and those given here.
HUP loads them anew: all workers or none; what is wrong is logged, and the old ones serve on.
TERM and INT drain: running requests are answered first; a second one ends at once.

  --listen URL         one more listener: http https tcp tls unix local
  --watch              loads scripts and their modules anew when their files change
  --workers N|auto     processes that serve, 1 by default; auto: one for each core
  --admin ADDR         where `reload` and `status` ask: unix:PATH, a path, http://HOST:PORT, or off.
                       By default a unix socket that they find by themselves
  --stamp              adds "perigee-generation: N" to HTTP replies
  --drain-timeout MS   how long running requests may take after TERM, 30000 by default
  --budget MS          how long a script may run without yielding, 1000 by default; what takes longer
                       fails with SCRIPT. What cannot be stopped ends the process, a second later,
                       with its stack and status 70
  --load-budget MS     the same while a script is loaded, 5000 by default
  --max-memory MIB     what all scripts may hold, 256 by default; at it they get "not enough memory".
                       A process that holds as much and cannot free it ends with status 70
  --no-budget          no such limits, but those given
]],
  run = [[
usage: perigee run SCRIPT [ARG]... [--timeout MS] [--budget MS] [--max-memory MIB]

Runs a script in a coroutine, so that await works in it. `...` and `arg` are its arguments.
The program ends with the script; work it has spawned is then cancelled, and sagas under way are undone.
Its exit status is the number the script returns, 0 without one, 1 when it fails. "-" reads it from standard input.
INT and TERM cancel the script, which undoes its sagas; a second one ends at once.

  --timeout MS         how long the whole may take; then it is cancelled in the same way
  --budget MS          how long it may run without yielding; no limit by default
  --max-memory MIB     what it may hold; no limit by default
  --                   what follows is for the script
]],
  send = [[
usage: perigee send URL PATTERN [DATA] [--timeout MS] [--metadata K=V]... [--option K=V]...

Sends a request and prints a line of JSON for each value of its reply.
PATTERN is JSON if it parses, else a string. DATA is JSON, {} by default, "-" reads standard input.

  --timeout MS         silence allowed before the first value and between values, 5000 by default
  --metadata K=V       metadata of the packet
  --option K=V         an option of the client, such as connect_timeout=500
]],
  emit = [[
usage: perigee emit URL PATTERN [DATA] [--timeout MS] [--metadata K=V]... [--option K=V]...

Sends an event and prints nothing. Arguments are those of send.
]],
  check = [[
usage: perigee check SCRIPT... [--json] [--static] [--load-budget MS]

Tells what is wrong with routing scripts, alone and together: reads them and their modules, then loads them.
Opens no port and no connection. Findings are lines on stderr, "FILE:LINE: SEVERITY: MESSAGE [RULE]"; with any the
status is 78. A comment "-- perigee: ignore RULE" at the end of a line silences warnings and hints on it.

  --json               an array on stdout: objects of file line column severity rule code message
  --static             only reads: for scripts of `perigee run`, and for those that should not run now
  --load-budget MS     how long a script may take to load, 5000 by default

errors, which keep it from being served:
  file syntax load missing-module option pattern unknown-token duplicate-token duplicate-route duplicate-pattern
  global-write no-app exit runaway certificate
warnings:
  undeclared-global unasked-reply emit-answer unknown-transport unreachable-pattern ambiguous-pattern
  unreachable-handler ignore
hints:
  literal-host literal-credential
]],
  test = [[
usage: perigee test [PATH]...

Runs specs of scripts on busted: files, and folders with their *_spec.lua; "spec" by default.
No listener is opened and no connection made: see perigee.testing in the README.
]],
  reload = [[
usage: perigee reload [--admin ADDR | --pid PID]

Has a running `perigee serve` load its scripts anew, and prints the generations, or why not.

  --admin ADDR         its admin door, as given to serve
  --pid PID            its process id; neither is needed when only one runs
]],
  status = [[
usage: perigee status [--admin ADDR | --pid PID] [--json]

Prints what a running `perigee serve` is at: generations, files, workers, calls.

  --admin ADDR         its admin door, as given to serve
  --pid PID            its process id; neither is needed when only one runs
  --json               as JSON
]],
  version = [[
usage: perigee version
]],
  help = [[
usage: perigee help [COMMAND]
]],
}

---@param argv string[]
---@return integer exit
local function help(argv)
  local name = arguments.parse(argv, {})[1]
  if name and not COMMANDS[name] then arguments.usage("there is no command '%s'", name) end
  io.stdout:write(name and COMMANDS[name] or USAGE)
  return 0
end

return { run = help, usage = USAGE }
