std = "lua54"
max_line_length = 120
files["spec"] = {std = "+busted"}
files["spec/golden"] = {max_line_length = false}
files["examples"] = {std = "lua54"}
exclude_files = {"build", "build-*"}
