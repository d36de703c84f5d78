-- busted's command line under this very luajit; the state is closed at the end, so that leaks can be told.
require("busted.runner")({ standalone = false })
