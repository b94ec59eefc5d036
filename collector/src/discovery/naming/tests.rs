use super::*;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| word.replace('~', " ")).collect()
}

/// `short_name` is the kernel's name for the process.
fn check_called(executable: &str, short_name: &str, line: &str, want: &str) {
    let facts = Facts {
        executable: Some(Path::new(executable)),
        short_name,
        arguments: &words(line),
        working_directory: None,
    };
    let name = service_name(&Environment::default(), &facts);
    assert_eq!(name.name, want, "{executable}: {short_name}: {line}");
}

/// `line` is a command line; `~` stands for a blank inside an argument.
fn check_in(directory: &str, environment: &[u8], executable: &str, line: &str, want: &str) {
    let arguments = words(line);
    let facts = Facts {
        executable: Some(Path::new(executable)).filter(|path| *path != Path::new("")),
        short_name: "short",
        arguments: &arguments,
        working_directory: Some(Path::new(directory)),
    };
    let name = service_name(&Environment::parse(environment), &facts);
    assert_eq!(name.name, want, "{executable}: {line}");
}

fn check(executable: &str, cases: &[(&str, &str)]) {
    for (line, want) in cases {
        check_in("/srv/shop", b"", executable, line, want);
    }
}

#[test]
fn python_is_called_by_its_script_or_module() {
    check(
        "/usr/bin/python3.11",
        &[
            ("python3 app.py", "app"),
            ("python /srv/x/main.py --port 80", "main"),
            ("python3 -m pkg.mod", "pkg.mod"),
            ("python3 -m pkg.__main__", "pkg"),
            ("python3 -m http.server 8000", "http.server"),
            ("python3 -mhttp.server", "http.server"),
            ("python3 -u -W ignore -X dev app.py", "app"),
            ("python3 -Wignore -Xdev -uB app.py", "app"),
            ("python3 -uW ignore app.py", "app"),
            ("python3 -Bum shop.main", "shop"),
            ("python3 -- app.py", "app"),
            ("python3 /srv/shop/__main__.py", "shop"),
            ("python3 __main__.py", "shop"),
            ("python3 manage.py runserver", "shop"),
            ("python3 /opt/bundle.pyz", "bundle"),
            ("python3 server.v2.py", "server.v2"),
            ("python3 -c print(1)", "python3.11"),
            ("python3 -uc print(1) app.py", "python3.11"),
            ("python3 - app.py", "python3.11"),
            ("python3", "python3.11"),
            ("", "python3.11"),
        ],
    );
}

#[test]
fn python_launchers_are_called_by_their_application() {
    check(
        "/usr/bin/python3.11",
        &[
            ("/venv/bin/python /venv/bin/gunicorn shop.wsgi:app", "shop"),
            (
                "python3 /usr/bin/gunicorn -b 0.0.0.0:80 -w 4 --log-level info shop.wsgi",
                "shop",
            ),
            (
                "python3 /usr/bin/gunicorn -b localhost:80 services.cart.app:create_app()",
                "services.cart",
            ),
            ("python3 /usr/bin/gunicorn --config x.py", "gunicorn"),
            ("python3 /usr/bin/uvicorn main:app", "main"),
            (
                "python3 /usr/bin/uvicorn --host 0.0.0.0 --port 80 --factory app.main:app --reload",
                "app",
            ),
            ("python3 -m uvicorn main:app --uds unix:/run/x", "main"),
            ("python3 -m gunicorn wsgi:app", "wsgi"),
            ("python3 /usr/bin/celery -A shop.celery worker", "shop"),
            ("python3 /usr/bin/celery --app=orders worker -c 2", "orders"),
            ("python3 /usr/bin/celery worker", "celery"),
            ("python3 /usr/bin/flask --app web/shop.py run", "shop"),
            ("python3 /usr/bin/flask run", "flask"),
            ("python3 /usr/bin/streamlit run board.py", "board"),
            ("gunicorn:~master~[shop.wsgi:app]", "shop"),
            ("gunicorn:~worker~[cart]", "cart"),
            (
                "[celeryd:~celery@h:MainProcess]~-active-~(worker~-A~shop)",
                "shop",
            ),
        ],
    );
    check(
        "/usr/bin/uwsgi",
        &[
            ("uwsgi --http :80 --module shop.wsgi:app", "shop"),
            ("uwsgi --wsgi-file=cart.py", "cart"),
            ("uwsgi --ini x.ini", "uwsgi"),
        ],
    );
    check_in(
        "/",
        b"FLASK_APP=orders.py",
        "/usr/bin/python3",
        "python3 /usr/bin/flask run",
        "orders",
    );
}

#[test]
fn node_is_called_by_its_script_package_or_directory() {
    check(
        "/usr/bin/node",
        &[
            ("node server.js", "server"),
            (
                "node --require x --max-old-space-size=4096 server.js",
                "server",
            ),
            (
                "node -r dotenv/config --inspect=0.0.0.0:9229 --import ./tracing.mjs app.mjs",
                "app",
            ),
            ("node --enable-source-maps /srv/cart/dist/index.js", "cart"),
            ("node index.js", "shop"),
            ("node .", "shop"),
            ("node ./src/index.js", "shop"),
            ("node /index.js", "index"),
            ("node -e console.log(1)", "node"),
            ("node", "node"),
            ("node /srv/shop/node_modules/.bin/next start", "next"),
            ("node /usr/lib/node_modules/@acme/gate/cli.js", "gate"),
            ("next-server~(v14.1.0)", "next-server"),
            ("npm~start", "npm"),
        ],
    );
    let package = b"npm_package_name=@acme/web";
    check_in(
        "/srv/shop",
        package,
        "/usr/bin/node",
        "node index.js",
        "web",
    );
    check_in(
        "/srv/shop",
        package,
        "/usr/bin/node",
        "node /srv/shop/node_modules/.bin/next start",
        "web",
    );
    check_in(
        "/srv/shop",
        package,
        "/usr/bin/node",
        "next-server~(v14.1.0)",
        "web",
    );
    check_in(
        "/srv/shop",
        package,
        "/usr/bin/node",
        "node server.js",
        "server",
    );
    check("/usr/bin/nodejs18", &[("nodejs x.js", "x")]);
}

#[test]
fn java_is_called_by_property_jar_or_main_class() {
    check(
        "/usr/lib/jvm/bin/java",
        &[
            ("java -jar shop-1.2.jar", "shop"),
            (
                "java -Xmx1g -cp /a.jar:/b.jar -Dx=y -jar /opt/order-service-2.0.1-SNAPSHOT.jar --server.port=80",
                "order-service",
            ),
            ("java -jar app.jar", "app"),
            ("java -cp x:y com.acme.shop.Server arg", "Server"),
            ("java --module-path mods -m shop/com.acme.Main", "Main"),
            (
                "java --add-opens java.base/java.lang=ALL-UNNAMED -javaagent:/x.jar Main",
                "Main",
            ),
            ("java @args.txt kafka.Kafka server.properties", "Kafka"),
            ("java Hello.java", "Hello"),
            ("java -Dotel.service.name=cart -jar shop-1.2.jar", "cart"),
            (
                "java -Dspring.application.name=cart -jar shop-1.2.jar",
                "cart",
            ),
            ("java -version", "java"),
        ],
    );
}

#[test]
fn other_interpreters_are_called_by_their_script() {
    check(
        "/usr/bin/ruby3.1",
        &[
            ("ruby -I lib -r json app.rb", "app"),
            ("ruby -Ilib -rjson -w app.rb", "app"),
            ("ruby bin/rails server", "shop"),
            ("ruby -e puts", "ruby3.1"),
            ("puma~6.4.0~(tcp://0.0.0.0:3000)~[cart]", "cart"),
            ("sidekiq~7.0~cart~[0~of~5~busy]", "sidekiq"),
        ],
    );
    check(
        "/usr/bin/perl",
        &[
            ("perl x.pl", "x"),
            ("perl -I lib -w x.pl", "x"),
            ("perl -we print", "perl"),
        ],
    );
    check(
        "/usr/bin/php8.2",
        &[
            ("php -d a=b script.php", "script"),
            ("php artisan serve", "shop"),
            ("php -S 0.0.0.0:80 -t public router.php", "router"),
            ("php -r echo", "php8.2"),
        ],
    );
    check(
        "/usr/bin/dotnet",
        &[
            ("dotnet Shop.dll", "Shop"),
            ("dotnet exec Shop.dll", "Shop"),
            ("dotnet --info", "dotnet"),
        ],
    );
    check(
        "/usr/bin/deno",
        &[
            ("deno run --allow-net server.ts", "server"),
            ("deno repl", "deno"),
        ],
    );
    check(
        "/usr/bin/bun",
        &[
            ("bun run server.ts", "server"),
            ("bun --preload x server.tsx", "server"),
        ],
    );
    check(
        "/usr/lib/erlang/beam.smp",
        &[(
            "beam.smp -W w -- -root /x -sname rabbit@host -s rabbit boot",
            "rabbit",
        )],
    );
    check(
        "/usr/bin/dash",
        &[
            ("sh script.sh", "script"),
            ("sh -e -o pipefail /entry.sh x", "entry"),
            ("sh -ec node~app.js", "dash"),
            ("-bash", "dash"),
        ],
    );
}

#[test]
fn what_is_no_interpreter_is_called_by_its_executable() {
    check(
        "/usr/sbin/nginx",
        &[
            ("nginx:~worker~process", "nginx"),
            ("nginx -g daemon~off;", "nginx"),
        ],
    );
    check(
        "/usr/bin/redis-server",
        &[("redis-server~*:6379", "redis-server")],
    );
    check("/usr/sbin/php-fpm8.2", &[("php-fpm:~pool~www", "php-fpm")]);
    check(
        "/usr/lib/postgresql/15/bin/postgres",
        &[("postgres:~checkpointer", "postgres")],
    );
    check(
        "/bin/busybox",
        &[("httpd -f", "httpd"), ("/bin/sh entry.sh", "entry")],
    );
    check(
        "/lib64/ld-linux-x86-64.so.2",
        &[("/lib64/ld-linux-x86-64.so.2 /srv/cart 1", "cart")],
    );
    check("/nix/store/x/bin/.cart-wrapped", &[("cart", "cart")]);
    check("", &[("whatever", "short")]);
}

#[test]
fn a_link_to_a_program_is_called_by_its_own_name() {
    for (executable, short_name, line, want) in [
        (
            "/usr/bin/redis-check-rdb",
            "redis-server",
            "redis-server~*:6379",
            "redis-server",
        ),
        (
            "/usr/bin/redis-check-rdb",
            "redis-server",
            "/usr/bin/redis-server~*:6379",
            "redis-server",
        ),
        (
            "/opt/1.2/bin/linux-amd64",
            "checkout-servic",
            "/srv/checkout-service -v",
            "checkout-service",
        ),
        ("/opt/cart", "cart", "anything", "cart"),
        (
            "/usr/bin/python3.11",
            "gunicorn",
            "gunicorn:~master~[shop]",
            "shop",
        ),
        (
            "/usr/bin/python3.11",
            "gunicorn",
            "/usr/bin/python3 /usr/bin/gunicorn shop:app",
            "shop",
        ),
        ("/usr/bin/python3.11", "python3", "python3 -c x", "python3"),
        ("/usr/bin/bash", "sh", "sh -c x", "sh"),
        ("/usr/bin/bash", "sh", "sh /dev/fd/3", "sh"),
        ("/memfd:sealed-1", "4", "/usr/bin/agent run", "agent"),
        (
            "/opt/my app/server",
            "server",
            "/opt/my~app/server",
            "server",
        ),
    ] {
        check_called(executable, short_name, line, want);
    }
}

#[test]
fn what_the_target_was_told_wins() {
    let told = b"OTEL_SERVICE_NAME=a\0OTEL_RESOURCE_ATTRIBUTES=service.name=b%20c".as_slice();
    check_in("/", told, "/usr/bin/python3", "python3 app.py", "a");
    let told = b"OTEL_SERVICE_NAME=\0OTEL_RESOURCE_ATTRIBUTES=service.name=b%20c".as_slice();
    check_in("/", told, "/usr/bin/python3", "python3 app.py", "b c");
}

#[test]
fn a_name_is_never_empty_long_or_unprintable() {
    let name = service_name(&Environment::default(), &Facts::default());
    assert_eq!(name.name, "unknown_service");
    check_in("/", b"OTEL_SERVICE_NAME= \x01\x02 ", "/bin/a", "a", "a");
    let long = format!("OTEL_SERVICE_NAME={}", "n".repeat(500));
    check_in(
        "/",
        long.as_bytes(),
        "/bin/a",
        "a",
        &"n".repeat(MAX_NAME_CHARS),
    );
}

proptest::proptest! {
    #[test]
    fn no_command_line_breaks_naming(arguments: Vec<String>, interpreter in 0..8_usize) {
        let names = ["python3", "node", "java", "ruby", "php", "beam.smp", "bash", "gunicorn"];
        let executable = Path::new("/usr/bin").join(names[interpreter]);
        let facts = Facts { executable: Some(&executable), arguments: &arguments, ..Facts::default() };
        proptest::prop_assert!(!service_name(&Environment::default(), &facts).name.is_empty());
    }
}
