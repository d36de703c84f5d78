-- Runs the examples of README.md. A comment before a block says how:
--   <!-- serve FILE -->, <!-- serve FILE, continued -->   parts of a routing script: checked, then served to the rest
--   <!-- prelude -->                                       what the blocks to run begin with
--   <!-- run -->                                           `perigee run`; what follows "-->" in it is its output
--   <!-- sh -->                                            "$ command" lines, each followed by its output
-- Ports are replaced by free ones, "certs/" by a folder of certificates.

local certs = require("spec.support.certs")
local loop = require("spec.support.loop")
local process = require("spec.support.process")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")
local uv = require("luv")

local PORTS = { "3000", "3001", "3002", "8080", "8081" }

local function read_blocks(path)
  local blocks, mark, block = {}, nil, nil
  local number = 0
  for line in io.lines(path) do
    number = number + 1
    if block then
      if line == "```" then
        block.text, block = table.concat(block, "\n") .. "\n", nil
      else
        block[#block + 1] = line
      end
    elseif line:find("^```") then
      block = { language = line:sub(4), mark = mark, line = number + 1 }
      blocks[#blocks + 1], mark = block, nil
    else
      mark = line:match("^<!%-%- (.-) %-%->$")
    end
  end
  return blocks
end

local function serve_name(block)
  return (block.mark or ""):match("^serve ([%w.]+)")
end

-- The routing scripts in their order, each with its parts put together.
local function scripts_of(blocks)
  local scripts, by_name = {}, {}
  for _, block in ipairs(blocks) do
    local name = serve_name(block)
    if name and not by_name[name] then
      by_name[name] = { name = name, text = "" }
      scripts[#scripts + 1] = by_name[name]
    end
    if name then by_name[name].text = by_name[name].text .. block.text end
  end
  return scripts
end

local function with_free_ports(text, ports)
  for _, port in ipairs(PORTS) do text = text:gsub("%f[%d]" .. port .. "%f[%D]", ports[port]) end
  return text
end

local function promised_output(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line:match("%-%-> (.*)$") end
  return table.concat(lines, "\n") .. (#lines > 0 and "\n" or "")
end

-- The commands of a transcript, each with the output it shows.
local function transcript(text)
  local steps = {}
  for line in text:gmatch("([^\n]*)\n") do
    local command = line:match("^%$ (.*)")
    if command then
      steps[#steps + 1] = { command = command, output = "" }
    else
      steps[#steps].output = steps[#steps].output .. line .. "\n"
    end
  end
  return steps
end

local BUILD, PRELOAD = os.getenv("BUILD") or "build", os.getenv("PERIGEE_PRELOAD")

-- The program is found by PATH. What is preloaded for luajit is not for sh and curl.
local function shell_environment()
  local env = { ("PATH=%s/%s/bin:%s"):format(uv.cwd(), BUILD, os.getenv("PATH")) }
  for name, value in pairs(uv.os_environ()) do
    if name ~= "PATH" and name ~= "LD_PRELOAD" then env[#env + 1] = name .. "=" .. value end
  end
  return env
end

-- After each command a record separator, so that its output can be told from the next one's.
local function shell_script(steps, prepared)
  local lines = {}
  for _, step in ipairs(steps) do
    local command = prepared(step.command):gsub("build/lib/", BUILD .. "/lib/")
    if PRELOAD and command:find("^luajit ") then command = ("LD_PRELOAD='%s' %s"):format(PRELOAD, command) end
    lines[#lines + 1] = command
    lines[#lines + 1] = "printf '\\036'"
  end
  return table.concat(lines, "\n")
end

local blocks = read_blocks("README.md")

describe("README.md", function()
  local ports, children, prelude = {}, {}, nil

  -- Scripts that a test of them loads are files somewhere.
  local function with_scripts(text)
    return (text:gsub('load%("([%w.]+)"%)', function(name)
      for _, child in ipairs(children) do
        if child.script.name == name then return ("load(%q)"):format(child.script.path) end
      end
    end))
  end

  local function prepared(text)
    return (with_free_ports(text, ports):gsub("certs/", certs.paths().dir .. "/"))
  end

  setup(function()
    for _, port in ipairs(PORTS) do ports[port] = tostring(tcp.free_port()) end
    for _, block in ipairs(blocks) do
      if block.mark == "prelude" then prelude = prepared(block.text) end
    end
    for _, script in ipairs(scripts_of(blocks)) do
      script.path = program.script(prepared(script.text))
      local child = program.start({ "serve", script.path }, { BILLING_PORT = ports["3001"] })
      local _, listeners = script.text:gsub("app:listen", "")
      program.urls(child, listeners)
      children[#children + 1] = { script = script, process = child }
    end
  end)

  teardown(function()
    program.clean()
    certs.clean()
    loop.finish()
  end)

  it("has blocks of every kind, and none whose mark nobody knows", function()
    local kinds = {}
    for _, block in ipairs(blocks) do
      local kind = block.mark and block.mark:match("^%a+") or "none"
      kinds[kind] = (kinds[kind] or 0) + 1
    end
    assert.are.equal(1, kinds.prelude)
    assert.is_nil(kinds.none) -- what is not run, rots
    assert.are.equal(#blocks, kinds.prelude + kinds.serve + kinds.run + kinds.sh)
  end)

  it("has routing scripts that pass the check, also together", function()
    local args = { "check" }
    for _, child in ipairs(children) do args[#args + 1] = child.script.path end
    for i = 2, #args do
      local code, _, err = program.run({ "check", args[i] })
      assert.are.same({ 0, "" }, { code, err }, children[i - 1].script.name)
    end
  end)

  for _, block in ipairs(blocks) do
    if block.mark == "run" then
      it("prints what line " .. block.line .. " and below promise", function()
        -- No line break: lines of a traceback then are those of the block.
        local path = program.script(prelude:gsub("\n", " ") .. with_scripts(prepared(block.text)))
        local code, out, err = program.run({ "run", path, "--timeout", "20000" })
        assert.are.same({ 0, promised_output(block.text), "" }, { code, out, err })
      end)
    elseif block.mark == "sh" then
      it("answers the commands of line " .. block.line .. " and below as shown", function()
        local steps = transcript(block.text)
        local child = process.start("sh", { "-ec", shell_script(steps, prepared) }, { env = shell_environment() })
        child:close_stdin()
        child:wait(30000)
        assert.are.same({ 0, "" }, { child.exit_code, child.stderr })
        local shown, answered = {}, {}
        for i, step in ipairs(steps) do shown[i] = step.command .. "\n" .. step.output end
        for answer in child.stdout:gmatch("([^\30]*)\30") do
          local step = steps[#answered + 1]
          answered[#answered + 1] = step.command .. "\n" .. answer:gsub("([^\n])$", "%1\n") -- curl ends without one
        end
        assert.are.same(shown, answered)
      end)
    end
  end

  -- The last: what a script prints into a pipe is there when it has ended.
  it("has scripts that drain on TERM, and a service that heard the events", function()
    for i = #children, 1, -1 do
      children[i].process:kill("sigterm")
      assert.are.equal(0, (children[i].process:wait(10000)), children[i].script.name)
    end
    local heard = children[1].process.stdout
    for _, order in ipairs({ "ord_1", "ord_42" }) do assert.is_truthy(heard:find("placed: " .. order, 1, true)) end
  end)
end)
